"""A tab of the page: controls, figures and words that follow them, and the job in between."""

from __future__ import annotations

import html
import io
import math
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import fastgrad
from fastgrad.explore.settings import FORMS, address_of, command_of, read
from fastgrad.nonlinearities import NONLINEARITIES
from fastgrad.report.html import STYLE, drawn, redraw, words
from fastgrad.report.writing import write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from fastgrad.explore.settings import Settings
    from fastgrad.report.document import Figure, Report

SECONDS_MAX = 60  # a setting that would take longer is refused
CONTROL_WIDTH = 220  # pixels, at least: on a narrow screen controls stand below each other
DARK = """@media (prefers-color-scheme: dark) {
  .bk-input, .bk-btn, select, option { background-color: #25282e !important; color: #e4e4e4 !important; }
}"""


class SupersededError(Exception):
    """Another setting is wanted by now, or none."""


class Field(NamedTuple):
    """A setting that is typed, or chosen among names."""

    key: str
    title: str
    choices: tuple[str, ...] = ()


DEPTH = Field("depth", "depth (links)")
ENSEMBLE = Field("ensemble", "ensemble (chains)")
WIDTH = Field("width", "width (units; 1 is a chain)")
NONLINEARITY = Field("nonlinearity", "nonlinearity", tuple(NONLINEARITIES))
SEED = Field("seed", "seed")


class Scale(NamedTuple):
    """A slider of a setting's decimal logarithm, of which another law's standard deviation takes the place of a law."""

    key: str
    title: str
    low: float
    high: float

    def text_at(self, log10: float, default: Any) -> str:
        """Write the value at a place of the slider, as a setting of the kind of `default`."""
        if isinstance(default, int):
            return str(max(1, round(10**log10)))
        return f"normal:std={10**log10:.4g}" if isinstance(default, str) else f"{10**log10:.4g}"

    def place_of(self, settings: Settings) -> float:
        """Return where the slider stands for a setting."""
        value = settings[self.key]
        if isinstance(value, str):
            try:
                value = fastgrad.laws.parse(value, "weight", settings.get("width", 1)).std
            except ValueError:  # of a law that does not go with the width, which the job tells
                return self.low
        return min(max(math.log10(value), self.low), self.high) if value > 0 else self.low


class Tab:
    """Controls of a form, and what they show; handlers run on the server's thread, and jobs on one of the page's.

    A subclass says which controls there are, and what is measured and drawn.

    Parameters
    ----------
    document : bokeh.document.Document
    pool : Executor
        Of one thread.
    changed : callable
        Called with the part of the address that restores the settings, when they have changed.
    """

    name: ClassVar[str]
    fields: ClassVar[tuple[Field, ...]]
    scales: ClassVar[tuple[Scale, ...]]
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    words_after: ClassVar[float] = 0.0  # seconds after the figures, if no other setting is wanted by then

    # A subclass gives these

    def seconds_of(self, settings: Settings) -> float:
        """Estimate how long a setting takes, generously."""
        raise NotImplementedError

    def measure(self, settings: Settings, progress: Callable[[int, int], None]) -> Any:
        """Run the job of a setting."""
        raise NotImplementedError

    def figures(self, result: Any, settings: Settings) -> list[Figure]:
        """Make the figures of a result; always as many."""
        raise NotImplementedError

    def headline(self, result: Any, settings: Settings) -> str:
        """Say in a line what is shown."""
        raise NotImplementedError

    def report(self, result: Any, settings: Settings) -> Report:
        """Make what the command would show."""
        raise NotImplementedError

    def adorn(self, result: Any, settings: Settings, is_new: list[bool]) -> None:
        """Add to the plots what is in no figure; `is_new` tells which of them were just made."""

    # All tabs have these

    def __init__(self, document: Any, pool: Executor, changed: Callable[[str], None]) -> None:
        from threading import Event

        from bokeh.layouts import column, row
        from bokeh.models.callbacks import CustomJS
        from bokeh.models.widgets import Button, Div, Select, Slider, TextInput

        self._document, self._pool, self._tell_address = document, pool, changed
        self.defaults = FORMS[self.name].defaults
        self.settings: Settings = dict(self.defaults)
        self.result: Any = None  # that is shown
        self._result_of: Settings = {}
        self._wanted = 0  # the number of the job whose result is shown; earlier ones end
        self._changed = Event()
        self._is_setting = False
        self._shown: list[Figure] = []  # what the plots show
        self.plots: list[Any] = []

        def styled(control: Any) -> Any:
            control.stylesheets = [DARK]
            return control

        self.controls: dict[str, Any] = {}
        for field in self.fields:
            if field.choices:
                options: list[Any] = list(field.choices)
                control: Any = Select(title=field.title, options=options)
            else:
                control = TextInput(title=field.title)
            control.update(sizing_mode="stretch_width", min_width=CONTROL_WIDTH, value=str(self.defaults[field.key]))
            control.on_change("value", partial(self._typed, field.key))
            self.controls[field.key] = styled(control)
        self.sliders: dict[str, Any] = {}
        for scale in self.scales:
            slider = Slider(
                title=scale.title,
                start=scale.low,
                end=scale.high,
                step=0.01,
                value=scale.place_of(self.defaults),
                sizing_mode="stretch_width",
                min_width=CONTROL_WIDTH,
            )
            slider.on_change("value", partial(self._slid, scale))
            self.sliders[scale.key] = slider
        self.status = Div(text="", sizing_mode="stretch_width", styles={"min-height": "1.5em"})
        self._stop = styled(Button(label="stop", disabled=True, width=80))
        self._stop.on_click(self.stop)
        self.command = styled(TextInput(title="the command that gives the same numbers", sizing_mode="stretch_width"))
        self.download = TextInput(visible=False)
        self.download.js_on_change("value", CustomJS(code=_DOWNLOAD))
        copy = styled(Button(label="copy the command", width=160))
        copy.js_on_click(CustomJS(args={"command": self.command}, code="navigator.clipboard.writeText(command.value);"))
        saves = []
        for form in ("CSV", "JSON"):
            save = styled(Button(label=form, width=80))
            save.on_click(partial(self.save, form.lower()))
            saves.append(save)
        presets = []
        for title, preset in self.presets.items():
            button = styled(Button(label=title, width=140))
            button.on_click(partial(self.change, {**self.defaults, **preset}))
            presets.append(button)
        self.words = Div(text="", sizing_mode="stretch_width")
        together = partial(row, sizing_mode="stretch_width", styles={"flex-wrap": "wrap"})
        self._place = together(Div(text=""))
        self.root = column(
            *([together(*presets)] if presets else []),
            together(*(self._with_slider(field.key) for field in self.fields)),
            row(self._stop, self.status, sizing_mode="stretch_width"),
            self._place,
            row(self.command, sizing_mode="stretch_width"),
            row(copy, *saves),
            self.words,
            self.download,
            sizing_mode="stretch_width",
        )

    def _with_slider(self, key: str) -> Any:
        from bokeh.layouts import column

        if key not in self.sliders:
            return self.controls[key]
        both = self.controls[key], self.sliders[key]
        return column(*both, sizing_mode="stretch_width", min_width=CONTROL_WIDTH)

    # Actions of the user

    def change(self, settings: Settings, slider: str | None = None) -> None:
        """Show other settings, which are checked already.

        A slider that changed one is left alone: it may have moved on, and would jump back under the hand.
        """
        self.settings = dict(settings)
        self._show_settings(slider)
        self._run()

    def _typed(self, key: str, _: str, __: str, text: str) -> None:
        if self._is_setting:
            return
        try:
            value = read(self.name, key, text)
        except ValueError as error:
            self.say(str(error))
            return
        self.change({**self.settings, key: value})

    def _slid(self, scale: Scale, _: str, __: float, log10: float) -> None:
        if not self._is_setting:
            text = scale.text_at(log10, self.defaults[scale.key])
            self.change({**self.settings, scale.key: read(self.name, scale.key, text)}, slider=scale.key)

    def stop(self) -> None:
        """End the job that runs."""
        self.abandon()
        self._stop.disabled = True
        self.say("stopped")

    def abandon(self) -> None:
        """Let nothing come of the job that runs: nobody looks any more."""
        self._wanted += 1
        self._changed.set()

    def save(self, form: str) -> None:
        """Hand the browser a file, CSV or JSON, of what is shown."""
        if self.result is None:
            return
        file = io.StringIO()
        write_text(self.report(self.result, self._result_of), "json" if form == "json" else "csv", file, None)
        self.download.value = ""  # so that the same one twice is a change
        self.download.value = f"fastgrad.{form}\n{file.getvalue()}"

    # Display of settings and results

    def say(self, text: str) -> None:
        """Put a line above the figures."""
        self.status.text = html.escape(text, quote=False)

    def _show_settings(self, slider: str | None) -> None:
        self._is_setting = True
        for key, control in self.controls.items():
            control.value = str(self.settings[key])
        for scale in self.scales:
            if scale.key != slider:
                self.sliders[scale.key].value = scale.place_of(self.settings)
        self.command.value = command_of(self.name, self.settings)
        self._tell_address(address_of(self.name, self.settings))
        self._is_setting = False

    def _run(self) -> None:
        self._wanted += 1
        self._changed.set()  # for the job that runs
        seconds = self.seconds_of(self.settings)
        if seconds > SECONDS_MAX:
            self._stop.disabled = True
            sizes = ", ".join(key for key in ("depth", "ensemble", "width", "steps") if key in self.settings)
            self.say(
                f"{sizes}: this would take some {seconds:.0f} s, expected at most {SECONDS_MAX} s on this page; the "
                "command below runs it"
            )
            return
        self._stop.disabled = False
        self.say("…")
        self._pool.submit(self._job, self._wanted, dict(self.settings))

    def _job(self, number: int, settings: Settings) -> None:
        def progress(done: int, total: int) -> None:
            if number != self._wanted:
                raise SupersededError
            if done < total:
                self._soon(number, partial(self._show_progress, 100 * done // total))

        if number == self._wanted:
            self._changed.clear()
        try:
            progress(1, 1)
            result = self.measure(settings, progress)
            figures = self.figures(result, settings)
            self._soon(number, partial(self._show_figures, result, settings, figures))
            if self.words_after:
                self._changed.wait(self.words_after)  # the figures are drawn, and another setting is not kept waiting
            progress(1, 1)
            report = self.report(result, settings)
        except SupersededError:
            return
        except (ValueError, OverflowError, fastgrad.TooLargeError) as error:
            self._soon(number, partial(self._failed, str(error)))
            return
        self._soon(number, partial(self._show_words, report))

    def _soon(self, number: int, act: Any) -> None:
        def run() -> None:
            if number == self._wanted:
                act()

        self._document.add_next_tick_callback(run)

    def _show_progress(self, percent: int) -> None:
        self.status.text = f'<progress max="100" value="{percent}"></progress> {percent} %'

    def _failed(self, text: str) -> None:
        self._stop.disabled = True
        self.say(text)

    def _show_figures(self, result: Any, settings: Settings, figures: list[Figure]) -> None:
        from bokeh.layouts import column

        self.result, self._result_of = result, settings
        self._stop.disabled = True
        is_new = [True] * len(figures)
        if len(figures) == len(self._shown):
            is_new = [not redraw(*each) for each in zip(self.plots, self._shown, figures, strict=True)]
        else:
            self.plots = [None] * len(figures)
        for i, figure in enumerate(figures):
            if is_new[i]:
                self.plots[i] = drawn(figure)
                self.plots[i].styles = {"background": "#fff", "border-radius": ".4rem"}
        self._shown = figures
        self.adorn(result, settings, is_new)
        if any(is_new):
            # In columns of their own: bokeh lines up the axes of figures in a row, and leaves room for legends twice.
            self._place.children = [
                column(plot, sizing_mode=plot.sizing_mode, min_width=plot.min_width) for plot in self.plots
            ]
        self.say(self.headline(result, settings))

    def _show_words(self, report: Report) -> None:
        self.words.text = f"<style>{STYLE} .table {{ max-width: 94vw; }}</style>{words(report.content)}"


_DOWNLOAD = """
const at = cb_obj.value.indexOf("\\n");
if (at < 0) return;
const link = document.createElement("a");
link.download = cb_obj.value.slice(0, at);
link.href = URL.createObjectURL(new Blob([cb_obj.value.slice(at + 1)]));
link.click();
"""
