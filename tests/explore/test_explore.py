"""The page in the browser, through its own handlers, and its server."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from urllib.parse import parse_qs, parse_qsl

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.explore.depth import DepthTab
from fastgrad.explore.page import TABS, Page
from fastgrad.explore.settings import FORMS, PRESETS, address_of, command_of, from_address, read
from fastgrad.report.html import drawn
from fastgrad.report.simulate import growth_figure
from fastgrad.scaled import FLOAT_LIMITS

pytest.importorskip("bokeh")
from bokeh.document import Document
from bokeh.models.annotations import Title

DEFAULTS = FORMS["depth"].defaults
WEIGHTS = ["normal:std={}", "uniform:low=-{0},high={0}", "constant:{}", "glorot_normal", "orthogonal:gain={}"]
BIASES = ["zero", "normal:std={}", "centered", "constant:-{}"]


def random_settings(rng):
    """Settings that a user may type, not all of which go together."""
    size = f"{10 ** rng.uniform(-1, 3):.3g}"
    return {
        "depth": int(10 ** rng.uniform(0, 2.3)),
        "ensemble": int(10 ** rng.uniform(0, 2.5)),
        "weight": str(rng.choice(WEIGHTS)).format(size),
        "bias": str(rng.choice(BIASES)).format(size),
        "seed": int(rng.integers(0, 2**63)),
        "width": int(rng.choice([1, 1, 2, 5, 16])),
        "nonlinearity": str(rng.choice(["sigmoid", "tanh", "relu", "linear"])),
    }


def raw(address):
    """Arguments of an address as the server gives them."""
    return {key: [value.encode() for value in values] for key, values in parse_qs(address, True).items()}


class Window:
    """A page without a browser: what the server would call is called here."""

    def __init__(self, **address):
        self.document, self.left = Document(), []
        self.document.add_next_tick_callback = self.left.append  # in their order, as the server's loop does them
        self.page = Page(self.document)
        if address:
            self.page.show(*from_address({key: [value.encode()] for key, value in address.items()}))
        self.settle()

    @property
    def tab(self):
        return self.page.tabs[self.page.shown]

    def settle(self):
        """Wait for the job, and do what it left for the server's thread."""
        for _ in range(400):
            self.page._pool.submit(lambda: None).result(60)
            if not self.left:
                return
            while self.left:
                self.left.pop(0)()

    def show(self, settings):
        self.tab.change(settings)
        self.settle()
        return self.tab.status.text


@pytest.fixture(autouse=True)
def words_at_once(monkeypatch):
    """No pause between the figure and the tables: nobody looks."""
    monkeypatch.setattr(DepthTab, "words_after", 0.0)


@pytest.fixture
def page():
    """A page, closed in the end."""
    opened = Window()
    yield opened
    opened.page.leave(None)


def test_it_begins_with_a_figure(page):
    assert page.tab.status.text.startswith("log10 |gradient| against the link: normal:std=4, bias zero, 1000 chains")
    expected = fg.simulate(100, 1000)
    assert page.tab.result.adjoint.log10().tolist() == expected.adjoint.log10().tolist()
    assert "Lyapunov exponent" in page.tab.words.text
    assert page.tab.plots[0].renderers


@pytest.mark.parametrize("name", PRESETS)
def test_presets(page, name):
    assert "gradient" in page.show({**DEFAULTS, **PRESETS[name]})


@pytest.mark.slow
def test_five_hundred_random_settings(page, rng):
    shown = refused = 0
    for _ in range(500):
        settings = random_settings(rng)
        words = page.show(settings)
        if words.startswith("log10"):
            shown += 1
            assert page.tab.result.depth == settings["depth"]
            assert address_of("depth", settings) == page.page.address.value
        else:
            refused += 1
            assert re.match(r"(weight|bias|depth|width|inputs|x|gain)\b.*: ", words), words
    assert shown > 300
    assert refused < 150


def test_two_pages_do_not_disturb_each_other():
    pages = [Window(), Window()]
    for i in range(5):
        for j, page in enumerate(pages):
            page.tab.change({**DEFAULTS, "seed": 10 * i + j, "ensemble": 20 + j})
    for j, page in enumerate(pages):
        page.settle()
        assert page.tab.result.seed == 40 + j
        assert page.tab.result.ensemble == 20 + j
        page.page.leave(None)


def test_controls_change_what_is_shown(page):
    texts = page.tab.controls
    texts["weight"].value = "normal:std=500"
    page.settle()
    assert page.tab.sliders["weight"].value == pytest.approx(np.log10(500))
    assert page.tab.result.lyapunov.mean < -150
    page.tab.sliders["weight"].value = 0.0
    page.settle()
    assert (texts["weight"].value, page.tab.result.weight.scale) == ("normal:std=1", 1.0)
    page.tab.sliders["depth"].value = np.log10(300)
    page.settle()
    assert (texts["depth"].value, page.tab.result.depth) == ("300", 300)
    page.tab.controls["nonlinearity"].value = "tanh"
    page.settle()
    assert page.tab.result.nonlinearity == "tanh"


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        ("weight", "normal:std=-3", "weight: "),
        ("weight", "cauchy", "weight: "),
        ("bias", "", "bias "),
        ("depth", "many", "depth: "),
        ("depth", "0", "depth: "),
        ("ensemble", "1.5", "ensemble: "),
        ("seed", "-1", "seed: "),
        ("width", "1:5", "width: "),
        ("depth", "10,20", "depth: expected one value, got 2"),
    ],
)
def test_bad_input_is_told_and_changes_nothing(page, key, text, told):
    before = page.tab.result
    page.tab.controls[key].value = text
    page.settle()
    assert page.tab.status.text.startswith(told)
    assert page.tab.result is before


def drawn_numbers(plot):
    """What the renderers of a plot show."""
    return [{name: np.asarray(values) for name, values in of.data_source.data.items()} for of in plot.renderers]


def test_a_figure_of_the_same_look_gets_new_numbers_and_another_is_drawn_anew(page):
    first = page.tab.plots[0]
    page.show({**DEFAULTS, "weight": "normal:std=500", "depth": 40})
    assert page.tab.plots[0] is first
    expected = drawn_numbers(drawn(growth_figure(page.tab.result)))
    found = drawn_numbers(first)
    assert len(found) == len(expected) == 5  # two bands and three lines
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name], equal_nan=True) for name in ours)
    page.show({**DEFAULTS, "width": 4, "nonlinearity": "tanh"})  # of layers: other labels
    assert page.tab.plots[0] is not first
    page.show({**DEFAULTS, "weight": "zero"})  # nothing to draw, and why
    assert [part for part in page.tab.plots[0].below if isinstance(part, Title)]


def test_what_would_take_minutes_is_refused_with_a_word(page):
    words = page.show({**DEFAULTS, "depth": 10**6, "ensemble": 10**5})
    assert words.startswith("depth, ensemble, width: this would take some 1000 s, expected at most 60 s on this page")
    assert page.tab.command.value.startswith("fastgrad simulate --depth 1000000 --ensemble 100000 ")


def test_a_long_job_is_stopped(page):
    page.tab.change({**DEFAULTS, "depth": 10**6, "ensemble": 2000})
    assert not page.tab._stop.disabled
    for _ in range(100):  # until it tells how far it is
        time.sleep(0.05)
        while page.left:
            page.left.pop(0)()
        if "<progress" in page.tab.status.text:
            break
    assert re.match(r'<progress max="100" value="\d+"></progress> \d+ %', page.tab.status.text)
    start = time.perf_counter()
    page.tab.stop()
    page.settle()
    assert time.perf_counter() - start < 5
    assert page.tab.status.text == "stopped"
    assert page.tab._stop.disabled


def test_files_are_those_of_the_command(page, cli):
    page.show({**DEFAULTS, "depth": 30, "ensemble": 40, "weight": "normal:std=7", "seed": 3})
    shown = cli(*command_of("depth", page.tab.settings).split()[1:], "--format", "json").stdout
    page.tab.save("json")
    name, _, text = page.tab.download.value.partition("\n")
    assert name == "fastgrad.json"
    assert json.loads(text)["result"] == json.loads(shown)["result"]
    assert json.loads(text)["parameters"] == json.loads(shown)["parameters"]
    page.tab.save("csv")
    name, _, text = page.tab.download.value.partition("\n")
    assert name == "fastgrad.csv"
    assert text == cli(*command_of("depth", page.tab.settings).split()[1:], "--format", "csv").stdout


def test_an_address_restores_the_setting(rng):
    for _ in range(200):
        settings = random_settings(rng)
        assert from_address(raw(address_of("depth", settings))) == ("depth", settings)
    assert address_of("depth", DEFAULTS) == ""
    assert dict(parse_qsl(address_of("depth", {**DEFAULTS, "seed": 2**63}))) == {"seed": str(2**63)}


def test_bad_addresses_are_told_each(rng):
    alphabet = list("abcdefgh:=,.-+eE0123456789%&/\\ \t\"'<>äλ\0")
    told = []
    for _ in range(300):
        key = str(rng.choice([*DEFAULTS, "color", "x", ""]))
        text = "".join(rng.choice(alphabet, rng.integers(0, 12)))
        try:
            from_address({key: [text.encode()]})
        except ValueError as error:
            told.append((key, str(error)))
    assert len(told) > 250
    assert all(words.startswith(key) for key, words in told)
    with pytest.raises(ValueError, match="depth: expected once in the address, got 2 times"):
        from_address({"depth": [b"1", b"2"]})
    with pytest.raises(ValueError, match="depth: expected UTF-8"):
        from_address({"depth": [b"\xff"]})
    with pytest.raises(ValueError, match="nonlinearity: expected one of sigmoid, tanh, relu, linear, got 'gelu'"):
        read("depth", "nonlinearity", "gelu")


def test_pages_leave_no_thread_behind():
    import threading

    before = threading.active_count()
    for _ in range(20):
        opened = Window()
        opened.page.leave(None)
        opened.page._pool.shutdown(wait=True)
    assert threading.active_count() == before


# The server


@pytest.fixture
def served(tmp_path):
    """Function that starts the command; its process and the page's address, once it is served."""
    started = []

    def start(*arguments):
        job = subprocess.Popen(
            [sys.executable, "-m", "fastgrad", "explore", "--no-browser", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(job)
        line = job.stdout.readline()
        return job, (re.search(r"http://\S+", line) or [None])[0]

    yield start
    for job in started:
        job.kill()
        job.communicate()


def test_it_is_served_and_ends_at_ctrl_c(served):
    job, url = served()
    page = urllib.request.urlopen(url, timeout=30).read().decode()
    assert "<title>fastgrad explore</title>" in page
    hosts = set(re.findall(r"(?:src|href)=\"(https?://[^/\"]+)", page))
    assert hosts <= {url.rstrip("/")}
    job.send_signal(signal.SIGINT)
    out, err = job.communicate(timeout=30)
    assert (job.returncode, out, err) == (0, "", "")


def test_a_port_that_is_taken(served, cli):
    _, url = served()
    port = url.rstrip("/").rpartition(":")[2]
    result = cli("explore", "--no-browser", "--port", port)
    assert result.exit_code == 1
    assert result.stderr == f"fastgrad: port: {port} is taken, expected a free one, or 0\n"


def test_an_address_that_is_none_of_this_machine(cli):
    result = cli("explore", "--no-browser", "--address", "192.0.2.1")
    assert result.exit_code == 1
    assert result.stderr.startswith("fastgrad: address: 192.0.2.1 can't be served (")


def test_what_an_address_opens_is_said(served):
    job, url = served("--address", "0.0.0.0")
    assert url.startswith("http://127.0.0.1:")
    assert urllib.request.urlopen(url, timeout=30).status == 200
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=30)
    assert err == "open to every machine that reaches 0.0.0.0: there is no password\n"


@pytest.mark.parametrize("found", [True, False])
def test_the_browser_is_opened_if_there_is_one(found, monkeypatch, cli):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or found)
    monkeypatch.setattr("fastgrad.explore.server.serve", lambda address, port, ready: ready("http://127.0.0.1:5/"))
    result = cli("explore", "--port", "5")
    assert (result.exit_code, result.stdout) == (0, "fastgrad explore: http://127.0.0.1:5/ (Ctrl-C ends it)\n")
    assert opened == ["http://127.0.0.1:5/"]
    assert result.stderr == ("" if found else "no browser was found: open the address yourself\n")


def test_without_bokeh(monkeypatch, cli):
    monkeypatch.setitem(sys.modules, "bokeh", None)
    result = cli("explore", "--no-browser")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "fastgrad: explore: needs bokeh: pip install 'fastgrad[explore]'\n"


# Tabs


def written(page, form="json"):
    """Name and text of a file that the page hands the browser."""
    page.tab.save(form)
    name, _, text = page.tab.download.value.partition("\n")
    return name, text


@pytest.mark.parametrize("tab", TABS)
def test_every_tab_shows_what_its_command_does(tab, cli):
    page = Window(tab=tab)
    words = page.tab.words.text
    result = cli(*page.tab.command.value.split()[1:], "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    name, text = written(page)
    assert name == "fastgrad.json"
    ours, theirs = json.loads(text), json.loads(result.stdout)
    assert ours["result"] == theirs["result"]
    assert ours["parameters"] == theirs["parameters"]
    table = cli(*page.tab.command.value.split()[1:], "--format", "csv").stdout
    assert written(page, "csv") == ("fastgrad.csv", table)
    assert "<table>" in words
    assert "stop" not in page.tab.status.text
    page.page.leave(None)


def test_the_lecture_with_other_numbers():
    page = Window(tab="lecture", weight="8", learning_rate="0.1")
    assert page.tab.result.gradient.to_float() == 150 * 100 * 2 * 50
    assert page.page.address.value == "tab=lecture&weight=8.0&learning_rate=0.1"
    page.tab.sliders["weight"].value = np.log10(500)
    page.settle()
    assert page.tab.controls["weight"].value == "500.0"
    assert page.tab.result.gradient.to_float() == 93_750_000
    assert page.tab.status.text.startswith("the gradient is 93")
    page.tab.controls["learning_rate"].value = "-1"
    page.settle()
    assert page.tab.status.text == "learning_rate: expected a positive number, got -1.0"
    page.page.leave(None)


def test_training_over_random_settings(rng):
    page = Window(tab="training")
    shown = 0
    for _ in range(60):
        size = f"{10 ** rng.uniform(-1, 3):.3g}"
        words = page.show(
            {
                "depth": int(10 ** rng.uniform(0, 1.3)),
                "ensemble": int(10 ** rng.uniform(0, 2)),
                "weight": str(rng.choice(WEIGHTS)).format(size),
                "bias": str(rng.choice(BIASES)).format(size),
                "learning_rate": float(10 ** rng.uniform(-3, 8)),
                "steps": int(10 ** rng.uniform(0, 2)),
                "seed": int(rng.integers(0, 2**63)),
            }
        )
        shown += words.endswith("running")
        assert words.endswith("running") or re.match(r"(weight|bias)\b.*: ", words), words
    assert shown > 35
    page.tab.sliders["learning_rate"].value = 2.0
    page.settle()
    assert page.tab.settings["learning_rate"] == 100.0
    assert "would take some" in page.show({**FORMS["training"].defaults, "steps": 10**7})
    page.page.leave(None)


def test_schemes_are_those_of_the_depth_that_is_looked_at():
    page = Window(depth="7", width="6", nonlinearity="relu", ensemble="30")
    page.page.choice.active = list(TABS).index("schemes")
    page.settle()
    assert page.page.shown == "schemes"
    assert page.page.address.value == "tab=schemes&depth=7&width=6&nonlinearity=relu"
    assert (page.tab.result.depth, page.tab.result.width, page.tab.result.nonlinearity) == (7, 6, "relu")
    page.tab.controls["width"].value = "1"
    page.tab.controls["nonlinearity"].value = "sigmoid"
    page.settle()
    assert page.tab.result.depths[-1] == 7  # chains, which are trained
    assert "would take some" in page.show({**FORMS["schemes"].defaults, "depth": 10**4, "ensemble": 1000})
    page.page.choice.active = 0
    page.settle()
    assert page.tab.name == "depth"
    assert page.tab.settings["width"] == 6  # as it was
    page.page.leave(None)


def test_an_address_names_its_tab(rng):
    for tab, form in FORMS.items():
        assert from_address(raw(address_of(tab, form.defaults))) == (tab, form.defaults)
    found = from_address(raw("tab=training&learning_rate=1e-3&steps=7"))
    assert found == ("training", {**FORMS["training"].defaults, "learning_rate": 1e-3, "steps": 7})
    for bad, message in (
        ("tab=loss", "tab: expected one of depth, lecture, training, schemes, got 'loss'"),
        ("tab=lecture&depth=3", "depth: no setting of the tab lecture, expected one of weight, learning_rate"),
        ("tab=lecture&weight=inf", "weight: expected a finite number, got 'inf'"),
        ("tab=training&learning_rate=fast", "learning_rate: expected a finite number, got 'fast'"),
    ):
        with pytest.raises(ValueError, match=message):
            from_address(raw(bad))


def test_the_distribution_is_that_of_the_first_link(page):
    page.show({**DEFAULTS, "ensemble": 700})
    log10 = page.tab.result.adjoint[0].log10()
    (line,) = page.tab.plots[1].renderers
    x, y = (np.asarray(line.data_source.data[name]) for name in "xy")
    assert (x[0], x[-1]) == (log10.min(), log10.max())
    assert y[1:-1:2].sum() == pytest.approx(1)
    for low, high, share in zip(x[1:-2:2], x[2:-1:2], y[1:-1:2], strict=True):
        inside = (log10 >= low) & ((log10 < high) | (high == log10.max()))
        assert share == pytest.approx(inside.mean())
    exponent, theory = page.tab.plots[1].title.text.splitlines()
    assert exponent.startswith(f"exponent {page.tab.result.lyapunov.mean:.2f}")
    assert theory == "theory -1.4870, in nats per link"
    page.show({**DEFAULTS, "weight": "zero"})  # no gradient, no distribution
    assert page.tab.plots[1].title.text == "exponent: minus infinity"


def test_lines_where_float_formats_end(page):
    from bokeh.models.annotations import Label, Span

    lines = {of.location for of in page.tab.plots[0].select({"type": Span})}
    expected = {log2 * np.log10(2) for limits in FLOAT_LIMITS.values() for log2 in limits}
    assert len(lines) == 7  # bfloat16 and float32 end at one number
    assert all(min(abs(line - of) for of in expected) < 0.06 for line in lines)
    labels = page.tab.plots[0].select({"type": Label})
    assert {of.text for of in labels} >= {"float16: 0 below", "bfloat16, float32: inf above", "float64: inf above"}
    assert all(of.visible for of in labels)
    page.show({**DEFAULTS, "weight": "normal:std=500"})
    assert not any(of.visible for of in labels)  # over 8000 decades they would cover each other
