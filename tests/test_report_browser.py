"""report.html in a browser: it opens from the disk, asks nobody for anything, and does what its buttons say."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from segfocal.config.augment import AugmentConfig
from segfocal.config.layouts import FolderConfig
from segfocal.config.task import TaskConfig
from segfocal.data.analysis import analyse
from segfocal.data.datamodule import SegmentationData
from segfocal.data.faults import Fault
from segfocal.report.analysis import page as analysis_page
from segfocal.report.evaluated import Evaluated
from segfocal.report.overlay import FALSE, FOUND, MISSED, class_colours
from segfocal.report.page import page
from tests.conftest import write_folder
from tests.reports import HOSTILE, evaluated, shown

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Overlays are painted in the frame after they come into sight, those of the first time once their labels are unpacked.
PAINTED = """async () => {
    for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
    await Promise.all([...document.querySelectorAll(".shot img")].map((image) => image.decode()));
    await new Promise((done) => setTimeout(done, 50));
}"""
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium that is there already; CI has one, and says so where it has not."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"CI without a browser: none of {', '.join(NAMES)} is installed")
        pytest.skip(f"NOT TESTED in a browser: none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """`opened(html)` shows it from a file once its charts are drawn; at the end there must be no error, no dialog and no request."""
    contexts, heard = [], []

    def call(html: str, width: int = 1300, scheme: str = "light", scripts: bool = True) -> Page:
        path = tmp_path / f"report {len(contexts)}.html"
        path.write_text(html, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts)  # type: ignore[arg-type]
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: heard.append(f"console: {message.text}") if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: heard.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on(
            "request",
            lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else heard.append(f"request: {request.url}"),
        )
        tab.goto(path.as_uri())
        if scripts and "startDrawing" in html:
            tab.wait_for_selector(".plot .main-svg", state="attached")
            tab.wait_for_function("[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('svg'))")
        if scripts and tab.locator(".shot").count():
            tab.locator(".shot").first.scroll_into_view_if_needed()
            painted = "document.querySelector('.shot canvas').getContext('2d').getImageData(0, 0, 60, 40).data.some((value) => value > 0)"
            tab.wait_for_function(painted)
        return tab

    yield call
    for context in contexts:
        context.close()
    assert heard == []


def pixels(tab: Page, selector: str = ".shot") -> np.ndarray:
    """What is seen there, a pixel of the screen each, without the round corners."""
    shot = tab.locator(selector).first
    shot.scroll_into_view_if_needed()
    tab.evaluate(PAINTED)
    return np.asarray(Image.open(io.BytesIO(shot.screenshot())).convert("RGB")).astype(int)[8:-8, 8:-8]


def at(picture: np.ndarray, right: bool, below: bool) -> list[int]:
    """The middle of a quarter."""
    height, width = picture.shape[:2]
    return list(picture[int(height * (0.7 if below else 0.25)), int(width * (0.75 if right else 0.25))])


def choose(tab: Page, name: str, value: str) -> None:
    tab.locator(f"input[name={name}][value={value}] + span").click()


def opacity(tab: Page, share: int) -> None:
    tab.locator("#opacity").fill(str(share))


def order(tab: Page, table: str = ".figures") -> list[str]:
    return tab.locator(f"{table} tbody th").all_inner_texts()


def html_of(item: Evaluated, **more: object) -> str:
    return page([item], shown(item.task, **more))  # type: ignore[arg-type]


def test_charts_are_drawn_and_tell_numbers_when_pointed_at(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,lr-a,train/loss,val/loss,val/iou/road,val/iou_macro\n,1,.1,,,,\n0,1,,.5,.6,.7,.8\n1,2,,.4,.5,.7,.8\n"
    )
    tab = opened(html_of(evaluated(run_dir=tmp_path)))
    drawn = tab.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.plot')].map((plot) => [plot.id, plot.querySelectorAll('.plot path').length]))"
    )
    assert set(drawn) == {
        f"chart-{name}" for name in ("roc", "pr", "iou", "f_beta", "reliability", "spread", "confusion-0", "loss", "progress", "rate")
    }
    assert all(drawn[f"chart-{name}"] >= 3 for name in ("roc", "pr", "iou", "f_beta", "reliability")), drawn
    assert all(count >= 1 for name, count in drawn.items() if name != "chart-confusion-0"), drawn
    assert tab.locator("#chart-confusion-0 .annotation").count() == 9
    before = tab.locator("#chart-pr .scatterlayer .trace").count()
    tab.locator("#curve-classes button", has_text="car").click()
    assert tab.locator("#chart-pr .scatterlayer .trace").count() == before * 2 / 3
    tab.locator("#log").click()
    assert "10" in (tab.locator("#chart-roc .xtick").first.text_content() or "")
    tab.locator("#chart-confusion-0").scroll_into_view_if_needed()
    box = tab.locator("#chart-confusion-0 .nsewdrag").bounding_box()
    assert box
    tab.mouse.move(box["x"] + box["width"] / 6, box["y"] + box["height"] / 2)
    tab.wait_for_selector("#chart-confusion-0 .hovertext")
    said = tab.locator("#chart-confusion-0 .hovertext").text_content()
    assert said
    count = int(evaluated().confusion[1, 0])
    assert f"car taken for road{count:,} pixels" in said


def test_the_slider_fades_an_overlay_whose_errors_have_their_colours(opened: Open) -> None:
    tab = opened(html_of(evaluated("binary")))
    choose(tab, "mode", "image")
    bare = pixels(tab)
    choose(tab, "mode", "errors")
    opacity(tab, 0)
    assert (pixels(tab) == bare).all()
    opacity(tab, 100)
    full = pixels(tab)
    assert (full != bare).mean() > 0.5
    opacity(tab, 50)
    assert abs(pixels(tab) - (full + bare) / 2).max() <= 2
    opacity(tab, 100)
    picture = pixels(tab)
    assert at(picture, right=False, below=False) == list(FOUND)
    assert at(picture, right=False, below=True) == list(MISSED)
    assert at(picture, right=True, below=False) == list(FALSE)
    assert at(picture, right=True, below=True) == [40, 40, 40]  # the image
    assert tab.locator("#legend").inner_text().split("\n") == ["found", "missed", "made up", "ignored"]
    choose(tab, "mode", "truth")
    assert tab.locator("#legend").inner_text() == ""
    picture = pixels(tab)
    assert at(picture, right=False, below=True) == list(FOUND)  # the colour of the only class
    assert at(picture, right=True, below=False) == [40, 40, 40]
    choose(tab, "mode", "prediction")
    picture = pixels(tab)
    assert at(picture, right=False, below=True) == [40, 40, 40]
    assert at(picture, right=True, below=False) == list(FOUND)


def test_classes_are_switched_on_and_off(opened: Open) -> None:
    item = evaluated()
    item.figures |= {"pixel_share/road": 0.6}  # covers too much to be shown unasked
    tab = opened(html_of(item))
    opacity(tab, 100)
    chips = tab.locator("#layers button")
    assert [chip.get_attribute("aria-pressed") for chip in chips.all()] == ["false", "true", "true"]
    colours = [list(colour) for _, colour in class_colours(item.task)]
    picture = pixels(tab)
    assert at(picture, right=False, below=False) == [40, 40, 40]  # right, and more than one class is shown
    assert at(picture, right=False, below=True) == list(MISSED)  # as sign
    assert at(picture, right=True, below=False) == list(FALSE)
    choose(tab, "mode", "truth")
    picture = pixels(tab)
    assert at(picture, right=False, below=True) == colours[2]
    assert at(picture, right=True, below=False) == [40, 40, 40]
    chips.nth(0).click()
    assert at(pixels(tab), right=True, below=False) == colours[0]
    chips.nth(2).click()
    assert at(pixels(tab), right=False, below=True) == [40, 40, 40]
    chips.nth(2).click(modifiers=["Shift"])
    assert [chip.get_attribute("aria-pressed") for chip in chips.all()] == ["false", "false", "true"]
    choose(tab, "mode", "errors")
    assert at(pixels(tab), right=False, below=False) == list(FOUND)


def test_classes_that_overlap_are_switched_one_by_one(opened: Open) -> None:
    item = evaluated("multilabel")
    tab = opened(html_of(item))
    opacity(tab, 100)
    assert at(pixels(tab), right=False, below=True) == list(MISSED)
    for chip in tab.locator("#layers button").all():
        chip.click()
    assert at(pixels(tab), right=False, below=True) == [40, 40, 40]


def test_the_gallery_is_filtered_and_enlarged(opened: Open) -> None:
    tab = opened(html_of(evaluated(), count=6))
    tab.locator(".shot").nth(0).focus()
    tab.keyboard.press("Enter")
    assert tab.locator("#large").is_visible()
    assert tab.locator("#large figcaption").all_inner_texts() == ["image", "truth", "prediction", "errors"]
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#large-name").inner_text() == "image 1"
    tab.keyboard.press("Escape")
    assert not tab.locator("#large").is_visible()
    choose(tab, "why", "worst")
    assert [figure.is_visible() for figure in tab.locator(".gallery figure").all()] == [True, False, False, True, False, False]
    tab.locator(".shot").nth(0).click()
    opacity_of = "Number(getComputedStyle(document.querySelector('#large canvas')).opacity)"
    assert tab.evaluate(opacity_of) == pytest.approx(0.7)
    tab.locator("#large [data-step='1']").click()
    assert tab.locator("#large-name").inner_text() == "image 3"
    tab.locator("#large [data-step='0']").click()
    assert not tab.locator("#large").is_visible()


def test_dark_and_light(opened: Open) -> None:
    def shade() -> list[float]:
        colours = "[document.body, document.querySelector('#chart-pr .xtick text')].map((e, i) => getComputedStyle(e)[i ? 'fill' : 'backgroundColor'])"
        return [sum(int(part) for part in colour[4:-1].split(",")) / 3 for colour in tab.evaluate(colours)]

    tab = opened(html_of(evaluated()), scheme="dark")
    back, ink = shade()
    assert back < 40 < 120 < ink
    tab.locator("#theme").click()
    back, ink = shade()
    assert ink < 120 < 230 < back
    tab.locator("#theme").click()
    assert shade()[0] < 40
    tab = opened(html_of(evaluated()))
    assert shade()[0] > 230
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_timeout(200)
    assert shade()[0] < 40 < 120 < shade()[1]


def test_a_legend_names_the_checkpoints_that_lines_are_of(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n0,1,.5\n1,2,.4\n")
    runs = [evaluated(name="first", run_dir=tmp_path), evaluated(name="<b>elsewhere</b>"), evaluated(name="third", run_dir=tmp_path)]
    tab = opened(page(runs, []))
    dashes = [
        tab.evaluate(f"drawn.get('chart-{key}')()[0].map(({{ line, mode }}) => mode === 'markers' ? '' : line.dash)")
        for key in ("pr", "rate")
    ]
    lines = "(id) => [...document.querySelectorAll(`#${id} > *`)].map((entry) => [entry.textContent, entry.querySelector('line').getAttribute('stroke-dasharray')])"
    curves, training = (tab.evaluate(lines, f"{section}-checkpoints") for section in ("curve", "training"))
    assert [name for name, _ in curves] == ["1 first", "2 <b>elsewhere</b>", "3 third"]
    assert [dash for _, dash in curves] == list(dict.fromkeys(dashes[0])) and len(set(dashes[0])) == 3
    assert training == [curves[0], curves[2]] and dashes[1] == [dash for _, dash in training]
    drawn = "[...document.querySelectorAll('#chart-pr .js-line')].map((line) => getComputedStyle(line).strokeDasharray)"
    assert {dash.replace(" ", "") for dash in tab.evaluate(drawn)} == {"none", *(dash for _, dash in curves[1:])}
    tab.emulate_media(media="print")
    assert tab.locator("#curve-checkpoints").is_visible() and tab.locator("#training-checkpoints").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_curves_of_every_colour_are_seen(opened: Open, scheme: str) -> None:
    tab = opened(html_of(evaluated(classes=[f"c{number}" for number in range(12)])), scheme=scheme)
    tab.evaluate("document.querySelectorAll('#curve-classes [aria-pressed=false]').forEach((chip) => chip.click())")
    found = tab.evaluate("drawn.get('chart-pr')()[0].filter(({ mode }) => mode === 'lines').map(({ line }) => line.color)")
    card = tab.evaluate("colourOf('--card')")

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert len(found) == 12
    for colour in found:
        light, dark = sorted((luminance(colour), luminance(card)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 2.5, colour  # 1.2 for the lightest as it is in pictures


def test_an_image_without_a_mistake_is_in_the_last_bar(opened: Open) -> None:
    tab = opened(html_of(evaluated()))
    highest = tab.evaluate("report.checkpoints[0].images = [1, 0.5, null], drawn.get('chart-spread')()[0][0].x")
    assert highest == [0.9999, 0.5, None]


def test_tables_are_sorted_by_any_column(opened: Open) -> None:
    item = evaluated(classes=["b", "c", "a", "nowhere"])
    item.figures |= {"iou/b": 0.2, "iou/c": 0.9, "iou/a": 0.5, "iou/nowhere": None}
    tab = opened(page([item], []))
    assert order(tab) == ["b", "c", "a", "nowhere", "mean"]
    header = tab.locator(".figures thead button", has_text="IoU").first
    header.click()
    assert order(tab) == ["c", "a", "b", "nowhere", "mean"]
    assert header.locator("..").get_attribute("aria-sort") == "descending"
    header.click()
    assert order(tab) == ["b", "a", "c", "nowhere", "mean"]
    tab.locator(".figures thead button", has_text="class").focus()
    tab.keyboard.press("Enter")
    assert order(tab) == ["a", "b", "c", "nowhere", "mean"]
    assert header.locator("..").get_attribute("aria-sort") == "none"


def test_hostile_names_are_shown_as_they_are(opened: Open) -> None:
    """That no dialog opens is asserted by the fixture."""
    item = evaluated(classes=HOSTILE)
    tab = opened(page([item, item], shown(item.task, names=HOSTILE[:3])))
    assert tab.locator("#layers button").all_inner_texts() == HOSTILE
    ticks = tab.locator("#chart-confusion-0 .ytick text").all_text_contents()
    assert ticks[3] == HOSTILE[3]
    assert ticks[0].startswith("</script><script>"[:15])
    tab.locator(".shot").nth(1).click()
    assert tab.locator("#large-name").inner_text() == HOSTILE[1]


def test_it_fits_a_telephone(opened: Open) -> None:
    item = evaluated(name="a" * 120)
    tab = opened(page([item, evaluated(tuned=False)], shown(item.task)), width=400)
    assert tab.evaluate("document.documentElement.scrollWidth") == 400


def test_figures_of_the_confusion_do_not_touch_each_other_on_a_telephone(opened: Open) -> None:
    def room(count: int) -> list[float]:
        """Between neighbours in a line."""
        tab.set_viewport_size({"width": 390, "height": 900})
        while tab.evaluate("document.querySelector('#chart-confusion-0 .main-svg').clientWidth") > 390:
            tab.wait_for_timeout(50)
        tab.wait_for_timeout(100)
        boxes = "[...document.querySelectorAll('#chart-confusion-0 .annotation text')].map((text) => text.getBoundingClientRect().toJSON())"
        found = tab.evaluate(boxes)
        assert len(found) in (0, count**2)
        return [right["left"] - left["right"] for place, (left, right) in enumerate(pairwise(found), 1) if place % count]

    for count, there in ((11, True), (15, False)):
        tab = opened(page([evaluated(classes=[f"class {number}" for number in range(count)])], []), width=1300)
        assert tab.locator("#chart-confusion-0 .annotation").count() == count**2
        assert tab.locator("#chart-confusion-0 .annotation text").first.evaluate("(text) => text.style.fontSize") == "12px"
        gaps = room(count)
        assert all(gap > 2 for gap in gaps) and bool(gaps) == there
        assert tab.locator("#chart-confusion-0 .xtick text").count() == count
    names = [f"a rather long name {number}" for number in range(30)]
    tab = opened(page([evaluated(classes=names)], []), width=390)
    assert [tab.locator(f"#chart-confusion-0 .{axis}tick text").count() for axis in "xy"] == [0, 30]


def test_figures_beside_bars_are_a_line_each_on_a_telephone(opened: Open) -> None:
    tab = opened(page([evaluated()], []), width=390)
    room = "[...document.querySelectorAll('.bar .n')].map((figure) => [figure.offsetHeight, figure.clientWidth - figure.scrollWidth])"
    heights, left = zip(*tab.evaluate(room), strict=True)
    assert len(heights) == 8 and len(set(heights)) == 1, "the mean, which is bold, needs more room"
    assert min(left) >= 0


@pytest.mark.parametrize("width", [390, 1280])
def test_an_analysis_is_as_wide_as_the_window(opened: Open, width: int, tmp_path: Path) -> None:
    sample = np.zeros((60, 60, 3), np.uint8), np.arange(3600, dtype=np.uint8).reshape(60, 60) % 30
    for split in ("train", "val", "test"):
        write_folder(tmp_path / ("data" * 30), [sample] * 2, split=split)
    task = TaskConfig(name="multiclass", classes=["a_rather_long_name" * (1 + number % 3) + str(number) for number in range(30)])
    config = FolderConfig(root=str(tmp_path / ("data" * 30)), crop=[32, 32], overlap="allow")
    data = SegmentationData(config, AugmentConfig(name="none"), task, 3, 0, 0)
    found = analyse(data)
    assert found.crops
    found.steps[0].faults.append(Fault("a" * 200, "nothing", "something", "data.check=off"))
    tab = opened(analysis_page(found, data), width=width)
    assert tab.get_by_text("What has to be mended").is_visible()
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    name = tab.locator(".name").nth(2)
    assert name.inner_text() == task.class_names[2]
    assert name.evaluate("(cell) => cell.scrollWidth <= cell.clientWidth"), "it is cut"


def test_without_scripts_there_are_figures_and_images(opened: Open) -> None:
    item = evaluated()
    tab = opened(html_of(item), scripts=False)
    assert f"{item.figures['iou_macro']:.3f}" in tab.locator("#answer").inner_text()
    assert tab.locator(".shot img").first.is_visible()
    assert "drawn by scripts" in tab.locator("noscript").inner_text()
