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
from fastgrad.explore import depth
from fastgrad.explore.settings import DEFAULTS, PRESETS, address_of, command_of, from_address, read
from fastgrad.report.html import drawn
from fastgrad.report.simulate import growth_figure

pytest.importorskip("bokeh")
from bokeh.document import Document
from bokeh.models.annotations import Title

WEIGHTS = ["normal:std={}", "uniform:low=-{0},high={0}", "constant:{}", "glorot_normal", "orthogonal:gain={}"]
BIASES = ["zero", "normal:std={}", "centered", "constant:-{}"]


def random_settings(rng):
    """Settings that a user may type, not all of which go together."""
    size = f"{10 ** rng.uniform(-1, 3):.3g}"
    return {
        "depth": int(10 ** rng.uniform(0, 3)),
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


class Page:
    """A page without a browser: what the server would call is called here."""

    def __init__(self):
        self.document, self.left = Document(), []
        self.document.add_next_tick_callback = self.left.append  # in their order, as the server's loop does them
        self.page = depth.DepthPage(self.document)
        self.settle()

    def settle(self):
        """Wait for the job, and do what it left for the server's thread."""
        for _ in range(400):
            self.page._pool.submit(lambda: None).result(60)
            if not self.left:
                return
            while self.left:
                self.left.pop(0)()

    def show(self, settings):
        self.page.change(settings)
        self.settle()
        return self.page.status.text


@pytest.fixture(autouse=True)
def words_at_once(monkeypatch):
    """No pause between the figure and the tables: nobody looks."""
    monkeypatch.setattr(depth, "WORDS_AFTER", 0.0)


@pytest.fixture
def page():
    """A page, closed in the end."""
    opened = Page()
    yield opened
    opened.page.leave(None)


def test_it_begins_with_a_figure(page):
    assert page.page.status.text.startswith("log10 |gradient| against the link: normal:std=4, bias zero, 1000 chains")
    expected = fg.simulate(100, 1000)
    assert page.page.growth.adjoint.log10().tolist() == expected.adjoint.log10().tolist()
    assert "Lyapunov exponent" in page.page.words.text
    assert page.page._figure.children[0].renderers


@pytest.mark.parametrize("name", PRESETS)
def test_presets(page, name):
    assert "gradient" in page.show({**DEFAULTS, **PRESETS[name]})


def test_five_hundred_random_settings(page, rng):
    shown = refused = 0
    for _ in range(500):
        settings = random_settings(rng)
        words = page.show(settings)
        if words.startswith("log10"):
            shown += 1
            assert page.page.growth.depth == settings["depth"]
            assert address_of(settings) == page.page._address.value
        else:
            refused += 1
            assert re.match(r"(weight|bias|depth|width|inputs|x|gain)\b.*: ", words), words
    assert shown > 300
    assert refused < 150


def test_two_pages_do_not_disturb_each_other():
    pages = [Page(), Page()]
    for i in range(5):
        for j, page in enumerate(pages):
            page.page.change({**DEFAULTS, "seed": 10 * i + j, "ensemble": 20 + j})
    for j, page in enumerate(pages):
        page.settle()
        assert page.page.growth.seed == 40 + j
        assert page.page.growth.ensemble == 20 + j
        page.page.leave(None)


def test_controls_change_what_is_shown(page):
    texts = page.page._texts
    texts["weight"].value = "normal:std=500"
    page.settle()
    assert page.page._std.value == pytest.approx(np.log10(500))
    assert page.page.growth.lyapunov.mean < -150
    page.page._std.value = 0.0
    page.settle()
    assert (texts["weight"].value, page.page.growth.weight.scale) == ("normal:std=1", 1.0)
    page.page._counts["depth"].value = np.log10(300)
    page.settle()
    assert (texts["depth"].value, page.page.growth.depth) == ("300", 300)
    page.page._nonlinearity.value = "tanh"
    page.settle()
    assert page.page.growth.nonlinearity == "tanh"


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
    before = page.page.growth
    page.page._texts[key].value = text
    page.settle()
    assert page.page.status.text.startswith(told)
    assert page.page.growth is before


def drawn_numbers(plot):
    """What the renderers of a plot show."""
    return [{name: np.asarray(values) for name, values in of.data_source.data.items()} for of in plot.renderers]


def test_a_figure_of_the_same_look_gets_new_numbers_and_another_is_drawn_anew(page):
    first = page.page._plot
    page.show({**DEFAULTS, "weight": "normal:std=500", "depth": 40})
    assert page.page._plot is first
    expected = drawn_numbers(drawn(growth_figure(page.page.growth)))
    found = drawn_numbers(first)
    assert len(found) == len(expected) == 5  # two bands and three lines
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name], equal_nan=True) for name in ours)
    page.show({**DEFAULTS, "width": 4, "nonlinearity": "tanh"})  # of layers: other labels
    assert page.page._plot is not first
    page.show({**DEFAULTS, "weight": "zero"})  # nothing to draw, and why
    assert [part for part in page.page._plot.below if isinstance(part, Title)]


def test_what_would_take_minutes_is_refused_with_a_word(page):
    words = page.show({**DEFAULTS, "depth": 10**6, "ensemble": 10**5})
    assert words.startswith("depth, ensemble, width: this would take some 1000 s, expected at most 60 s on this page")
    assert page.page._command.value.startswith("fastgrad simulate --depth 1000000 --ensemble 100000 ")


def test_a_long_job_is_stopped(page):
    page.page.change({**DEFAULTS, "depth": 10**6, "ensemble": 2000})
    assert not page.page._stop.disabled
    time.sleep(0.2)
    start = time.perf_counter()
    page.page.stop()
    page.settle()
    assert time.perf_counter() - start < 5
    assert page.page.status.text == "stopped"
    assert page.page._stop.disabled


def test_files_are_those_of_the_command(page, cli):
    page.show({**DEFAULTS, "depth": 30, "ensemble": 40, "weight": "normal:std=7", "seed": 3})
    shown = cli(*command_of(page.page._settings).split()[1:], "--format", "json").stdout
    page.page._save("json")
    name, _, text = page.page._download.value.partition("\n")
    assert name == "fastgrad.json"
    assert json.loads(text)["result"] == json.loads(shown)["result"]
    assert json.loads(text)["parameters"] == json.loads(shown)["parameters"]
    page.page._save("csv")
    name, _, text = page.page._download.value.partition("\n")
    assert name == "fastgrad.csv"
    assert text == cli(*command_of(page.page._settings).split()[1:], "--format", "csv").stdout


def test_an_address_restores_the_setting(rng):
    for _ in range(200):
        settings = random_settings(rng)
        assert from_address(raw(address_of(settings))) == settings
    assert address_of(DEFAULTS) == ""
    assert dict(parse_qsl(address_of({**DEFAULTS, "seed": 2**63}))) == {"seed": str(2**63)}


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
        read("nonlinearity", "gelu")


def test_pages_leave_no_thread_behind():
    import threading

    before = threading.active_count()
    for _ in range(20):
        opened = Page()
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


def test_without_bokeh(monkeypatch, cli):
    monkeypatch.setitem(sys.modules, "bokeh", None)
    result = cli("explore", "--no-browser")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "fastgrad: explore: needs bokeh: pip install 'fastgrad[explore]'\n"
