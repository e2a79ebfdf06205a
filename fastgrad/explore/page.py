"""The page of one browser window: tabs, of which one is shown, and the address that holds its settings."""

from __future__ import annotations

import html
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fastgrad.explore.depth import DepthTab
from fastgrad.explore.lecture import LectureTab
from fastgrad.explore.schemes import SchemesTab
from fastgrad.explore.settings import FORMS, from_address
from fastgrad.explore.tab import DARK
from fastgrad.explore.training import TrainingTab

if TYPE_CHECKING:
    from fastgrad.explore.settings import Settings
    from fastgrad.explore.tab import Tab

TABS: dict[str, type[Tab]] = {kind.name: kind for kind in (DepthTab, LectureTab, TrainingTab, SchemesTab)}
SHARED = ("depth", "width", "nonlinearity")  # settings that the schemes take over from the depth tab
# The place of the page: it fits a narrow screen, and follows the system's dark or light.
TEMPLATE = """{% block postamble %}<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><style>
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: .5rem; max-width: 80rem;
  background: light-dark(#fff, #16181c); color: light-dark(#1b1b1b, #e4e4e4); }
</style>{% endblock %}"""


class Page:
    """A page; each tab is made when it is first shown.

    Parameters
    ----------
    document : bokeh.document.Document
        With a session, whose request has the address.
    """

    def __init__(self, document: Any) -> None:
        from bokeh.layouts import column
        from bokeh.models.callbacks import CustomJS
        from bokeh.models.widgets import Div, RadioButtonGroup, TextInput

        self._document = document
        self._pool = ThreadPoolExecutor(1)
        self.tabs: dict[str, Tab] = {}
        self.shown = ""  # the name of a tab
        self.address = TextInput(visible=False)
        self.address.js_on_change(
            "value",
            CustomJS(code='history.replaceState(null, "", location.pathname + (cb_obj.value && "?" + cb_obj.value));'),
        )
        titles = [FORMS[name].title for name in TABS]
        self.choice = RadioButtonGroup(labels=titles, active=0, stylesheets=[DARK])
        self.choice.on_change("active", self._chosen)
        self.notice = Div(text="", sizing_mode="stretch_width", styles={"color": "light-dark(#a40000, #ff8a80)"})
        self._place = column(Div(text=""), sizing_mode="stretch_width")
        document.add_root(column(self.choice, self.notice, self._place, self.address, sizing_mode="stretch_width"))
        document.title, document.template = "fastgrad explore", TEMPLATE
        document.on_session_destroyed(self.leave)
        self._open()

    def _open(self) -> None:
        request = self._document.session_context.request if self._document.session_context else None
        try:
            name, settings = from_address(request.arguments if request else {})
        except ValueError as error:
            self.show(next(iter(TABS)))
            self.notice.text = html.escape(f"address: {error}; shown is what the page begins with")
            return
        self.show(name, settings)

    def _chosen(self, _: str, __: int, place: int) -> None:
        self.show(list(TABS)[place])

    def show(self, name: str, settings: Settings | None = None) -> Tab:
        """Show a tab, with its settings as they were or with other ones."""
        if name == self.shown:
            if settings is not None:
                self.tabs[name].change(settings)
            return self.tabs[name]
        before = self.tabs.get(self.shown)
        if before is not None:
            before.abandon()
        self.shown = name
        if name not in self.tabs:
            self.tabs[name] = TABS[name](self._document, self._pool, self._tell_address)
        tab = self.tabs[name]
        if settings is None:
            settings = tab.settings
            if name == "schemes" and before is not None and before.name == "depth":
                settings = {**settings, **{key: before.settings[key] for key in SHARED}}
        self._place.children = [tab.root]
        self.choice.active = list(TABS).index(name)
        tab.change(settings)
        return tab

    def _tell_address(self, address: str) -> None:
        self.notice.text = ""  # it was of another one
        self.address.value = address

    def leave(self, session_context: Any) -> None:
        """End all that runs: the page was closed."""
        for tab in self.tabs.values():
            tab.abandon()
        self._pool.shutdown(wait=False, cancel_futures=True)
