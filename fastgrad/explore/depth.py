"""The page: controls, the figure of the gradient against the link, and what `fastgrad simulate` says of it."""

from __future__ import annotations

import contextlib
import io
import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import fastgrad
from fastgrad.explore.settings import DEFAULTS, PRESETS, address_of, command_of, from_address, read
from fastgrad.nonlinearities import NONLINEARITIES, is_chain
from fastgrad.report.html import STYLE, drawn, redraw, words
from fastgrad.report.simulate import growth_figure, growth_report
from fastgrad.report.writing import write_text

if TYPE_CHECKING:
    from fastgrad.explore.settings import Settings
    from fastgrad.jobs.growth import Growth
    from fastgrad.report.document import Figure, Report

SECONDS_PER_LINK = 1e-8  # of a chain, or of a weight of a layer, both ways; on a slow processor
SECONDS_MAX = 60  # a setting that would take longer is refused
LOG10_STD = (-1.0, 3.0)  # ends of the slider
WORDS_AFTER = 0.2  # seconds after the figure, if no other setting is wanted by then
CONTROL_WIDTH = 220  # pixels, at least: on a narrow screen controls stand below each other
# The place of the page: it fits a narrow screen, and follows the system's dark or light.
TEMPLATE = """{% block postamble %}<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><style>
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: .5rem; max-width: 80rem;
  background: light-dark(#fff, #16181c); color: light-dark(#1b1b1b, #e4e4e4); }
</style>{% endblock %}"""
DARK = """@media (prefers-color-scheme: dark) {
  .bk-input, .bk-btn, select, option { background-color: #25282e !important; color: #e4e4e4 !important; }
}"""
LOG10_COUNT = {"depth": (0.0, 5.0), "ensemble": (0.0, 4.0), "width": (0.0, 3.0)}


class SupersededError(Exception):
    """Another setting is wanted by now, or none."""


class DepthPage:
    """A page of one browser window; its handlers run on the server's thread, and jobs on one of its own.

    Parameters
    ----------
    document : bokeh.document.Document
        With a session, whose request has the address.
    """

    def __init__(self, document: Any) -> None:
        from bokeh.layouts import column, row
        from bokeh.models.callbacks import CustomJS
        from bokeh.models.widgets import Button, Div, Select, Slider, TextInput

        self._document = document
        self._settings: Settings = dict(DEFAULTS)
        self._wanted = 0  # the number of the job whose result is shown; earlier ones end
        self._pool = ThreadPoolExecutor(1)
        self._changed = Event()
        self._is_setting = False
        self._texts = {
            key: TextInput(title=title, value=str(DEFAULTS[key]), sizing_mode="stretch_width")
            for key, title in (
                ("weight", "law of the weights"),
                ("bias", "law of the biases"),
                ("depth", "depth (links)"),
                ("ensemble", "ensemble (chains)"),
                ("width", "width (units; 1 is a chain)"),
                ("seed", "seed"),
            )
        }
        names: list[Any] = list(NONLINEARITIES)
        self._nonlinearity = Select(title="nonlinearity", value="sigmoid", options=names, sizing_mode="stretch_width")
        self._std = Slider(
            title="log10 of the weights' standard deviation",
            start=LOG10_STD[0],
            end=LOG10_STD[1],
            step=0.01,
            value=math.log10(4),
            sizing_mode="stretch_width",
        )
        self._counts = {
            key: Slider(
                title=f"log10 of the {key}",
                start=low,
                end=high,
                step=0.01,
                value=math.log10(DEFAULTS[key]),
                sizing_mode="stretch_width",
            )
            for key, (low, high) in LOG10_COUNT.items()
        }
        self.status = Div(text="", sizing_mode="stretch_width", styles={"min-height": "1.5em"})
        self._stop = Button(label="stop", disabled=True, width=80)
        self._command = TextInput(title="the command that gives the same numbers", sizing_mode="stretch_width")
        self._address = TextInput(visible=False)
        self._download = TextInput(visible=False)
        self.words = Div(text="", sizing_mode="stretch_width")
        self.growth: Growth | None = None
        self._plot: Any = None
        self._shown: Figure | None = None  # what the plot shows
        self._parameters: dict[str, Any] = {}
        copy = Button(label="copy the command", width=160)
        copy.js_on_click(
            CustomJS(args={"command": self._command}, code="navigator.clipboard.writeText(command.value);")
        )
        save = {name: Button(label=name, width=80) for name in ("CSV", "JSON")}
        for name, button in save.items():
            button.on_click(partial(self._save, name.lower()))
        self._download.js_on_change(
            "value",
            CustomJS(
                code="""
                const at = cb_obj.value.indexOf("\\n");
                if (at < 0) return;
                const link = document.createElement("a");
                link.download = cb_obj.value.slice(0, at);
                link.href = URL.createObjectURL(new Blob([cb_obj.value.slice(at + 1)]));
                link.click();
                """
            ),
        )
        self._address.js_on_change(
            "value",
            CustomJS(code='history.replaceState(null, "", location.pathname + (cb_obj.value && "?" + cb_obj.value));'),
        )
        presets = []
        for name, preset in PRESETS.items():
            button = Button(label=name, width=140)
            button.on_click(partial(self.change, {**DEFAULTS, **preset}))
            presets.append(button)
        for key, text in self._texts.items():
            text.on_change("value", partial(self._typed, key))
        self._nonlinearity.on_change("value", partial(self._typed, "nonlinearity"))
        self._std.on_change("value_throttled", self._slid)
        self._std.on_change("value", self._slid)
        for key, slider in self._counts.items():
            slider.on_change("value", partial(self._counted, key))
        self._stop.on_click(self.stop)
        self._figure = column(Div(text=""), sizing_mode="stretch_width")
        texts = self._texts
        for control in (*texts.values(), self._nonlinearity, self._std, *self._counts.values()):
            control.min_width = CONTROL_WIDTH
        for control in (*texts.values(), self._nonlinearity, self._command, self._stop, copy, *save.values(), *presets):
            control.stylesheets = [DARK]
        together = partial(row, sizing_mode="stretch_width", styles={"flex-wrap": "wrap"})
        document.add_root(
            column(
                together(*presets),
                together(texts["weight"], self._std),
                together(texts["bias"], self._nonlinearity, texts["seed"]),
                together(
                    *(
                        column(texts[key], slider, sizing_mode="stretch_width", min_width=CONTROL_WIDTH)
                        for key, slider in self._counts.items()
                    )
                ),
                row(self._stop, self.status, sizing_mode="stretch_width"),
                self._figure,
                row(self._command, sizing_mode="stretch_width"),
                row(copy, *save.values()),
                self.words,
                self._address,
                self._download,
                sizing_mode="stretch_width",
            )
        )
        document.title, document.template = "fastgrad explore", TEMPLATE
        document.on_session_destroyed(self.leave)
        self._open()

    def _open(self) -> None:
        request = self._document.session_context.request if self._document.session_context else None
        try:
            self.change(from_address(request.arguments if request else {}))
        except ValueError as error:
            self.change(dict(DEFAULTS))
            self._say(f"address: {error}; shown is what the page begins with")

    # What the user does

    def change(self, settings: Settings) -> None:
        """Show other settings, which are checked already."""
        self._settings = dict(settings)
        self._show_settings()
        self._run()

    def _typed(self, key: str, _: str, __: str, text: str) -> None:
        if self._is_setting:
            return
        try:
            value = read(key, text)
        except ValueError as error:
            self._say(str(error))
            return
        self.change({**self._settings, key: value})

    def _slid(self, _: str, __: float, log10_std: float) -> None:
        if self._is_setting:
            return
        self.change({**self._settings, "weight": read("weight", f"normal:std={10**log10_std:.4g}")})

    def _counted(self, key: str, _: str, __: float, log10_count: float) -> None:
        if not self._is_setting:
            self.change({**self._settings, key: max(1, round(10**log10_count))})

    def stop(self) -> None:
        """End the job that runs."""
        self._wanted += 1
        self._changed.set()
        self._stop.disabled = True
        self._say("stopped")

    def _save(self, form: str) -> None:
        if self.growth is None:
            return
        file = io.StringIO()
        write_text(growth_report(self.growth, self._parameters), "json" if form == "json" else "csv", file, None)
        self._download.value = ""  # so that the same one twice is a change
        self._download.value = f"fastgrad.{form}\n{file.getvalue()}"

    def leave(self, session_context: Any) -> None:
        """End all that runs: the page was closed."""
        self._wanted += 1
        self._changed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # What is shown

    def _say(self, words: str) -> None:
        self.status.text = words

    def _show_settings(self) -> None:
        self._is_setting = True
        for key, text in self._texts.items():
            text.value = str(self._settings[key])
        self._nonlinearity.value = self._settings["nonlinearity"]
        with contextlib.suppress(ValueError):  # of laws that do not go with the width, which the job tells
            std = fastgrad.laws.parse(self._settings["weight"], "weight", self._settings["width"]).std
            self._std.value = min(max(math.log10(std), LOG10_STD[0]), LOG10_STD[1]) if std > 0 else LOG10_STD[0]
        for key, slider in self._counts.items():
            slider.value = min(math.log10(self._settings[key]) if self._settings[key] > 0 else 0.0, slider.end)
        self._command.value = command_of(self._settings)
        self._address.value = address_of(self._settings)
        self._is_setting = False

    def _run(self) -> None:
        self._wanted += 1
        seconds = seconds_of(self._settings)
        if seconds > SECONDS_MAX:
            self._stop.disabled = True
            self._say(
                f"depth, ensemble, width: this would take some {seconds:.0f} s, expected at most {SECONDS_MAX} s on "
                "this page; the command below runs it"
            )
            return
        self._stop.disabled = False
        self._say("…")
        self._changed.set()  # for the job that runs
        self._pool.submit(self._job, self._wanted, dict(self._settings))

    def _job(self, number: int, settings: Settings) -> None:
        def progress(done: int, total: int) -> None:
            if number != self._wanted:
                raise SupersededError
            if done < total:
                self._soon(number, partial(self._say, f"{100 * done // total} %"))

        if number == self._wanted:
            self._changed.clear()
        try:
            progress(1, 1)
            parameters = {"x": 0.5, "record": 64, "inputs": 1, **settings}
            growth = fastgrad.simulate(**parameters, progress=progress)
            self._soon(number, partial(self._show_figure, growth, parameters, growth_figure(growth)))
            self._changed.wait(WORDS_AFTER)  # the figure is drawn meanwhile, and another setting is not kept waiting
            progress(1, 1)
            report = growth_report(growth, parameters)  # with what a framework reads, which takes 0.1 s
        except SupersededError:
            return
        except (ValueError, fastgrad.TooLargeError) as error:
            self._soon(number, partial(self._failed, str(error)))
            return
        self._soon(number, partial(self._show_words, report))

    def _soon(self, number: int, act: Any) -> None:
        def run() -> None:
            if number == self._wanted:
                act()

        self._document.add_next_tick_callback(run)

    def _failed(self, words: str) -> None:
        self._stop.disabled = True
        self._say(words)

    def _show_figure(self, growth: Growth, parameters: dict[str, Any], figure: Figure) -> None:
        self.growth, self._parameters = growth, parameters
        self._stop.disabled = True
        if self._shown is None or not redraw(self._plot, self._shown, figure):
            self._plot = drawn(figure)
            self._plot.styles = {"background": "#fff", "border-radius": ".4rem"}
            self._figure.children = [self._plot]
        self._shown = figure
        self._say(figure.title)

    def _show_words(self, report: Report) -> None:
        self.words.text = f"<style>{STYLE} .table {{ max-width: 94vw; }}</style>{words(report.content)}"


def seconds_of(settings: Settings) -> float:
    """Estimate how long a setting takes, generously."""
    links = float(settings["depth"]) * float(settings["ensemble"])
    of_chain = is_chain(settings["width"], settings["nonlinearity"])
    return links * SECONDS_PER_LINK * (1 if of_chain else int(settings["width"]) ** 2 + 20)
