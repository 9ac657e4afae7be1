"""Links reduced to ids, and the child that fetches, against a stand-in for yt-dlp; the real one is
never called.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.audio.sample_file import Cancelled
from asr.errors import DataError, NetworkError, ParamsError, UserError
from asr.transcribe import youtube
from support.repository import REPOSITORY
from support.waiting import wait_for

ID = "dQw4w9WgX-_"
SEED = 20
HOSTILE = 300

STAND_IN = '''
"""Behaves as yt-dlp does where asr.transcribe.youtube relies on it.

STAND_IN in the environment chooses what goes wrong.
"""
import json, os, pathlib, shutil, signal, socket, subprocess, sys
from yt_dlp.utils import DownloadError

class YoutubeDL:
    def __init__(self, params):
        self.params = params
        pathlib.Path(os.environ["STAND_IN_SAW"]).write_text(json.dumps({
            "params": {
                key: value for key, value in params.items()
                if not callable(value) and key != "progress_hooks"
            },
            "no_plugins": os.environ.get("YTDLP_NO_PLUGINS"), "argv": sys.argv[1:],
        }))
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass
    def download(self, urls):
        with open(os.environ["STAND_IN_SAW"] + ".urls", "w") as file:
            json.dump(urls, file)
        getattr(self, os.environ.get("STAND_IN", "good"))()
    def asked(self, **info):
        info = {"duration": 5, **info}
        self.params["match_filter"]({}, incomplete=True)
        return self.params["match_filter"](info, incomplete=False)
    def target(self, ending="wav"):
        return pathlib.Path(self.params["outtmpl"]["default"].replace("%(ext)s", ending))
    def good(self):
        assert self.asked() is None
        for done in (0, 1, 2):
            for hook in self.params["progress_hooks"]:
                hook({"status": "downloading", "downloaded_bytes": done, "total_bytes": 2})
        self.target("wav.part").write_bytes(b"")
        shutil.copy(os.environ["STAND_IN_SOUND"], self.target("wav.part"))
        self.target("wav.part").rename(self.target())
    def too_long(self):
        self.asked(duration=3 * 3600 + 1)
        self.good()
    def live(self):
        self.asked(is_live=True, duration=None)
        self.good()
    def no_length(self):
        self.asked(duration=None)
        self.good()
    def announced_too_big(self):
        self.asked(filesize_approx=201 << 20)
        self.good()
    def told_too_big(self):
        for hook in self.params["progress_hooks"]:
            hook({"downloaded_bytes": 201 << 20})
    def grows(self):
        with self.target("webm.part").open("wb") as file:
            file.truncate(200 << 20)
            file.seek(0, 2)
            signal.pause()
    def grows_on(self):
        with self.target("webm.part").open("wb") as file:
            file.truncate(201 << 20)
    def hangs(self):
        other = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        pid = pathlib.Path(os.environ["STAND_IN_SAW"] + ".pid")
        pid.with_suffix(".draft").write_text(str(other.pid))
        pid.with_suffix(".draft").rename(pid)
        self.target("webm.part").write_bytes(b"half")
        signal.pause()
    def refused(self):
        print("ERROR: as yt-dlp also prints", file=sys.stderr)
        raise DownloadError("ERROR: [youtube] x: Video unavailable\\nThis video is private")
    def empty(self):
        self.asked()
    def half(self):
        self.target("webm.part").write_bytes(b"half")
    def broken(self):
        raise RuntimeError("a bug of yt-dlp's")
    def dies(self):
        os.abort()
    def leads_away(self):
        try:
            socket.create_connection(("internal.example", 80), timeout=1)
        except OSError as error:
            raise DownloadError(f"ERROR: {error}")
    def leads_home(self):
        for address in (("127.0.0.1", 1), ("169.254.169.254", 80), ("::1", 1)):
            try:
                family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
                socket.socket(family).connect(address)
            except PermissionError as error:
                continue
            raise SystemExit(9)
        raise DownloadError("ERROR: all three refused")
'''


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put the stand-in where children find it; returns a function that fetches with one of its
    faults into an empty folder.
    """
    package = tmp_path / "stand_in" / "yt_dlp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    (package / "utils.py").write_text("class DownloadError(Exception):\n    pass\n")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(32_000))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'stand_in'}{os.pathsep}{REPOSITORY}")
    monkeypatch.syspath_prepend(str(tmp_path / "stand_in"))
    monkeypatch.setenv("STAND_IN_SAW", str(tmp_path / "saw.json"))
    monkeypatch.setenv("STAND_IN_SOUND", str(tmp_path / "sound.wav"))
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "100% of $HOME" / "in"
    folder.mkdir(parents=True)

    def fetch(fault: str = "good", link: str = f"https://youtu.be/{ID}", **how: Callable) -> Path:
        monkeypatch.setenv("STAND_IN", fault)
        return youtube.fetch(link, folder, **how)

    return fetch


@pytest.mark.parametrize(
    "link",
    [
        f"https://www.youtube.com/watch?v={ID}",
        f"http://youtube.com/watch?v={ID}&t=42s",
        f"www.youtube.com/watch?app=desktop&v={ID}&list=PL123&index=2",
        f"HTTPS://M.YouTube.com/watch?v={ID}#t=3",
        f"https://music.youtube.com/watch/?v={ID}&feature=share",
        f"https://youtu.be/{ID}?si=abc",
        f"youtu.be/{ID}/",
        f"https://www.youtube.com/shorts/{ID}",
        f"https://www.youtube.com/live/{ID}?feature=share",
        f"https://www.youtube-nocookie.com/embed/{ID}?rel=0",
        f"  https://www.youtube.com/v/{ID}\n",
    ],
)
def test_the_links_people_copy(link: str) -> None:
    assert youtube.video_id(link) == ID


HOSTS = [
    "youtube.com.evil.example", "evilyoutube.com", "youtube.com@evil.example",
    "youtube.com:80@evil.example", "evil.example",
    "user@www.youtube.com", "user:pass@youtu.be", "www.youtube.com:8080", "youtu.be:443",
    "127.0.0.1", "localhost", "10.0.0.1", "[::1]",
    "169.254.169.254", "2130706433", "0x7f000001", "youtube.com.",
    "www.youtube.com..", "xn--yutube-wqf.com", "уoutube.com", "youtubе.com",
    "youtube。com", "ｙoutube.com", "youtube.com%2f@evil.example",
    "youtube.com\\@evil.example", "youtube.com\\.evil.example", "internal",
    "www.youtube.com#@evil.example", "www.youtube.com?@evil.example", "studio.youtube.com",
    "a.youtu.be", "youtube", "youtube.co", "",
]  # fmt: skip
SCHEMES = [
    "https://",
    "http://",
    "//",
    "",
    "file://",
    "ftp://",
    "javascript:",
    "data:text/html,",
    "https:/",
    "https:\\\\",
    "hxxps://",
    "ytsearch:",
]
PATHS = [
    f"/watch?v={ID}",
    f"/{ID}",
    f"/embed/{ID}",
    f"/shorts/{ID}",
    f"/redirect?q=http://127.0.0.1/{ID}",
    "/",
    "",
]
NO_VIDEOS = [
    "/playlist?list=PL0123456789", "/watch?list=PL0123456789", "/watch", "/watch?v=",
    "/watch?v=short", f"/watch?v={ID}x", "/@someone",
    f"/watch?v={ID}&v=aaaaaaaaaaa", "/embed/videoseries?list=PL0",
    "/embed/live_stream?channel=UC0", f"/redirect?v={ID}", "/channel/UC0",
    f"/attribution_link?u=/watch?v={ID}", "/results?search_query=x", f"/watch?v=../{ID[:8]}",
    "/shorts/%2e%2e%2f%2e%2e",
    f"//evil.example/{ID}",
    "/watch?v=aaaaa%00aaaaa", f"/watch%3Fv={ID}", "/embed/" + "a" * 10 + "é",
    f"/watch?{'a=b&' * 60}v={ID}", f"/shorts/{ID}/../..",
]  # fmt: skip
SIGNS = [
    "\0",
    "\n",
    "\r\nHost: evil.example",
    "\t",
    " ",
    "\x7f",
    "\u202e",
    "\u200b",
    "\ud800",
    "\\",
    "\x1b[2J",
]


def hostile(seed: int, count: int) -> list[str]:
    """Links of several kinds, none of which names a video of YouTube's."""
    draw, links = random.Random(seed), list[str]()
    kinds: list[Callable[[], str]] = [
        lambda: draw.choice(SCHEMES[:4]) + draw.choice(HOSTS) + draw.choice(PATHS),
        lambda: (
            draw.choice(SCHEMES[4:])
            + draw.choice(["www.youtube.com", "youtu.be", "127.0.0.1", "/etc/passwd"])
            + draw.choice(PATHS)
        ),
        lambda: (
            draw.choice(SCHEMES[:2])
            + draw.choice(["www.youtube.com", "m.youtube.com"])
            + draw.choice(NO_VIDEOS)
        ),
        lambda: _broken(draw, draw.choice(SCHEMES[:2]) + "www.youtube.com/watch?v=" + ID),
        lambda: f"https://www.youtube.com/watch?v={ID}&x=" + "y" * draw.randint(500, 5000),
        lambda: "".join(
            chr(draw.choice([draw.randrange(32, 127), draw.randrange(0xA0, 0x2FFF)]))
            for _ in range(draw.randint(0, 80))
        ),
    ]
    while len(links) < count:
        links.append(kinds[len(links) % len(kinds)]())
    return links


def _broken(draw: random.Random, link: str) -> str:
    place = draw.randrange(1, len(link))
    return link[:place] + draw.choice(SIGNS) + link[place:]


COUNTING = """
import json, os, sys
from pathlib import Path
seen = []
counted = ("socket.getaddrinfo", "socket.connect", "subprocess.Popen")
sys.addaudithook(
    lambda event, args: seen.append([event, repr(args[:2])]) if event in counted else None
)
from asr.errors import ParamsError
from asr.transcribe import youtube
refused = 0
for link in json.load(sys.stdin):
    try:
        youtube.fetch(link, Path(sys.argv[1]))
    except ParamsError as fault:
        refused += "\\n" not in str(fault) and str(fault).isprintable() and len(str(fault)) < 250
before = list(seen)
import socket
with socket.socket() as server:  # the control: a real connection is seen
    server.bind(("127.0.0.1", 0))
    server.listen()
    socket.create_connection(server.getsockname()).close()
youtube.fetch(sys.argv[2], Path(sys.argv[1]))  # and so is a child
control = [event for event, _ in seen[len(before):]]
print(json.dumps({"refused": refused, "hostile": before, "control": control}))
"""


@pytest.mark.usefixtures("stand_in")
def test_hostile_links_open_no_socket_and_start_no_child(tmp_path: Path) -> None:
    links = hostile(SEED, HOSTILE)
    print(f"seed {SEED}, {HOSTILE} links, {len(set(links))} different")
    command = [sys.executable, "-c", COUNTING, str(tmp_path), f"https://youtu.be/{ID}"]
    done = subprocess.run(
        command, input=json.dumps(links), capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert told["refused"] == HOSTILE
    assert told["hostile"] == []
    assert {"socket.getaddrinfo", "socket.connect", "subprocess.Popen"} <= set(told["control"])


@given(st.text() | st.from_regex(r"https?://[a-z.@:/]*(youtube\.com|youtu\.be)[\x00-\x7f]{0,40}"))
def test_whatever_the_link_there_is_an_id_or_one_clear_line(link: str) -> None:
    found = said = None
    try:
        found = youtube.video_id(link)
    except ParamsError as fault:
        said = str(fault)
    if said is not None:
        assert said.isprintable()
        assert "https://youtu.be/" in said
    else:
        assert youtube.VIDEO.fullmatch(found or "")
        rest = link.strip().lower().removeprefix("https://").removeprefix("http://")
        assert rest.split("/")[0] in (
            "youtube.com", "www.youtube.com", "m.youtube.com", "music.youtube.com", "youtu.be",
            "www.youtube-nocookie.com"
        )  # fmt: skip


def test_a_video_arrives_under_our_name(stand_in: Callable[..., Path], tmp_path: Path) -> None:
    shares: list[float] = []
    found = stand_in(
        link=f"https://www.youtube.com/watch?v={ID}&list=PL1", on_progress=shares.append
    )
    assert found.name == "recording.wav"
    assert found.read_bytes() == (tmp_path / "sound.wav").read_bytes()
    assert list(found.parent.iterdir()) == [found]
    assert shares == [0.0, 0.5, 1.0]
    assert json.loads((tmp_path / "saw.json.urls").read_text()) == [
        f"https://www.youtube.com/watch?v={ID}"
    ]


def test_yt_dlp_is_kept_to_one_video_of_youtube(
    stand_in: Callable[..., Path], tmp_path: Path
) -> None:
    stand_in()
    saw = json.loads((tmp_path / "saw.json").read_text())
    params = saw["params"]
    assert saw["no_plugins"] == "1"
    assert params["allowed_extractors"] == ["youtube"]
    assert params["noplaylist"] is True
    assert params["cachedir"] is False
    assert params["fixup"] == "never"
    assert params["max_filesize"] == 200 << 20
    assert "/" not in params["outtmpl"]["default"]
    wanted_absent = (
        "cookiefile",
        "cookiesfrombrowser",
        "usenetrc",
        "postprocessors",
        "enable_file_urls",
        "remote_components",
        "ignoreerrors",
    )
    assert not any(
        params.get(name)
        for name in (
            *wanted_absent,
            "external_downloader",
            "default_search",
            "proxy",
            "nocheckcertificate",
        )
    )


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("too_long", DataError, "3.0 hours, want at most 3"),
        ("live", DataError, "live"),
        ("no_length", DataError, "how long"),
        ("announced_too_big", DataError, "more than 200 MB"),
        ("told_too_big", DataError, "more than 200 MB"),
        ("grows_on", NetworkError, "yt-dlp failed"),
        ("refused", NetworkError, "Video unavailable This video is private"),
        ("empty", DataError, "no sound of at most 200 MB"),
        ("half", DataError, "no sound of at most 200 MB"),
        ("broken", NetworkError, "a bug of yt-dlp's"),
        ("dies", NetworkError, "exit code -6"),
        ("leads_away", NetworkError, "'internal.example', which is no host of YouTube's"),
        ("leads_home", NetworkError, "all three refused"),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(
    stand_in: Callable[..., Path], tmp_path: Path, fault: str, kind: type[UserError], says: str
) -> None:
    with pytest.raises(kind) as caught:
        stand_in(fault)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert type(caught.value) is kind
    assert list((tmp_path / "100% of $HOME" / "in").iterdir()) == []


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("way", ["cancel", "time", "size"])
def test_the_whole_group_ends(
    stand_in: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The child has started another process and half of the file is there when the end comes."""
    pid = tmp_path / "saw.json.pid"
    if way == "time":
        clock = SimpleNamespace(monotonic=lambda: 2 * youtube.LIMIT_SECONDS * pid.exists())
        monkeypatch.setattr(youtube, "time", clock)
    if way == "size":
        monkeypatch.setattr(youtube, "LIMIT_BYTES", 3)
    wanted = {"cancel": Cancelled, "time": NetworkError, "size": DataError}[way]
    cancelled = pid.exists if way == "cancel" else lambda: False
    with pytest.raises(wanted):
        stand_in("hangs", cancelled=cancelled)
    wait_for(lambda: not alive(int(pid.read_text())))
    assert list((tmp_path / "100% of $HOME" / "in").iterdir()) == []


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(youtube, "available", lambda: False)
    with pytest.raises(ParamsError, match=r"pip install -e '\.\[youtube\]'"):
        youtube.fetch(f"https://youtu.be/{ID}", tmp_path)


def test_the_child_takes_an_id_and_nothing_else(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "asr.transcribe.youtube", f"https://youtu.be/{ID}", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "usage" in done.stderr


@pytest.mark.parametrize(
    "host",
    ["www.youtube.com", "YOUTUBE.COM", "r3---sn-1.googlevideo.com", b"youtube.com", "youtube.com."],
)
def test_hosts_of_youtube_are_spoken_to(host: str | bytes) -> None:
    youtube.stay_with_youtube("socket.getaddrinfo", (host, 443))


@pytest.mark.parametrize(
    "host",
    ["notyoutube.com", "youtube.com.evil.example", "10.0.0.1", None, "", b"\xff", "proxy.example"],
)
def test_other_hosts_are_not(host: str | bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with pytest.raises(PermissionError):
        youtube.stay_with_youtube("socket.getaddrinfo", (host, 443))


def test_a_proxy_that_is_set_is_spoken_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    youtube.stay_with_youtube("socket.getaddrinfo", ("proxy.example", 3128))
    youtube.stay_with_youtube("socket.connect", (None, ("127.0.0.1", 3128)))
    with pytest.raises(PermissionError):
        youtube.stay_with_youtube("socket.getaddrinfo", ("other.example", 443))
