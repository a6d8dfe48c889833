"""A real headless Chromium on a real server: run by `make test-browser` (`pytest -m browser`), not by the default suite."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text("utf-8")
IMAGES = Path(__file__).parent.parent.parent / "docs" / "img"
WIDE, PHONE = (1280, 860), (390, 844)


def chromium() -> webdriver.Chrome:
    binary = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.exit("there is no chromium or chromedriver: run `make test-browser`, which installs them", returncode=1)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    flags = ["--headless=new", "--disable-dev-shm-usage", "--hide-scrollbars", "--disable-background-networking"]
    for flag in flags + (["--no-sandbox"] if os.getuid() == 0 else []):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))


@pytest.fixture(scope="session")
def driver() -> Iterator[webdriver.Chrome]:
    browser = chromium()
    yield browser
    browser.quit()


@dataclass
class Page:
    """A page of one server, with what a person would do there."""

    driver: webdriver.Chrome
    address: str

    @property
    def base(self) -> str:
        return self.address.partition("#")[0]

    def open(self, place: str = "", token: bool = True) -> None:
        self.driver.get("about:blank")
        self.driver.get(self.address if token else self.base)
        if place:
            self.wait(lambda: self.find("#crumbs a"))
            self.go(place)

    def go(self, place: str) -> None:
        self.driver.execute_script("location.hash = arguments[0]", place)

    def find(self, selector: str) -> WebElement | None:
        return next(iter(self.all(selector)), None)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def need(self, selector: str) -> WebElement:
        found: WebElement = self.wait(lambda: self.find(selector), selector)
        return found

    def text(self, selector: str) -> str:
        return str(self.driver.execute_script("return document.querySelector(arguments[0])?.textContent.toWellFormed() ?? ''", selector))

    def wait(self, condition: Callable[[], Any], words: str = "the page", seconds: float = 30) -> Any:
        try:
            return WebDriverWait(self.driver, seconds, 0.1).until(lambda _: condition())
        except TimeoutException as error:
            raise AssertionError(f"waited {seconds} s for {words}; {self.driver.current_url} shows: {self.text('main')[:1500]}") from error

    def click(self, selector: str) -> None:
        self.driver.execute_script("arguments[0].click()", self.need(selector))

    def keys(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def size(self, width: int, height: int) -> None:
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})

    def theme(self, name: str) -> None:
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": name}]})

    def faults(self) -> list[str]:
        """What axe calls serious or critical."""
        self.driver.execute_script(AXE)
        run = """
            const done = arguments[0];
            const broken = (error) => done([{id: String(error), impact: 'critical', nodes: []}]);
            axe.run(document, {resultTypes: ['violations']}).then((found) => done(found.violations), broken);
        """
        found = self.driver.execute_async_script(run)
        return [f"{one['id']}: {[node['html'][:160] for node in one['nodes'][:4]]}" for one in found if one["impact"] in ("serious", "critical")]

    def hosts(self) -> set[str]:
        """Where the page has sent requests to since this was asked last."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        addresses = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        return {address.split("/")[2] if "://" in address else address.partition(":")[0] for address in addresses}

    def picture(self, name: str, tmp_path: Path, keep: bool) -> None:
        """A picture of the window, below 200 kB; kept in docs/img where `--screenshots` asks for it."""
        target = (IMAGES if keep else tmp_path) / f"{name}.png"
        assert self.driver.save_screenshot(str(target))
        assert target.stat().st_size < 200_000


@pytest.fixture
def page(driver: webdriver.Chrome) -> Iterator[Callable[[Path], Page]]:
    """Opens a server on a folder. At the end: no error on the console, no request to anybody else."""
    servers: list[subprocess.Popen[str]] = []
    pages: list[Page] = []

    def serve(folder: Path) -> Page:
        command = [sys.executable, "-m", "selftrain", "watch", str(folder), "--port", "0"]
        servers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stdout = servers[-1].stdout
        assert stdout is not None
        made = Page(driver, stdout.readline().strip())
        assert made.address.startswith("http://127.0.0.1:")
        driver.get_log("browser"), driver.get_log("performance")
        made.size(*WIDE)
        made.theme("light")
        pages.append(made)
        return made

    yield serve
    log = [f"{entry['level']}: {entry['message']}" for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    hosts = pages[-1].hosts() if pages else set()
    own = {page.base.split("/")[2] for page in pages}
    driver.get("about:blank")
    for server in servers:
        server.terminate()
        server.communicate(timeout=10)
    assert not log
    assert hosts <= own | {"about", "data"}


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(scope="session")
def default_run(home: Path) -> Path:
    """A real run of the embedded model, small enough for a test."""
    sizes = {"run.num-steps": 16, "run.checkpoint-every-steps": 4, "rollout.prompts-per-step": 12, "prompts.count": 48}
    sizes |= {"evals.num-problems": 16, "evals.every-steps": 8, "policy.num-threads": 1}
    options = [part for name, value in sizes.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "selftrain", "train", "--run.folder", str(home), "--run.name", "additions", "--log", "json", *options]
    subprocess.run(command, check=True, capture_output=True, timeout=280)
    return home / "additions"
