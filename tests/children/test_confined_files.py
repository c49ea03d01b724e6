"""A confined program reads and changes nothing but what its confinement names, whatever it tries."""

import contextlib
import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from confined_kit import TOKEN, Ended, Place, Runner, ended

from actors.runtime.children.confinement.covers import Covers
from actors.runtime.children.confinement.mounts import View
from actors.runtime.children.confinement.reserve import Reservations

#: Ways to the token that is outside: each is run in the scope, with the path in $SECRET.
READS = {
    "by its path": 'cat "$SECRET"',
    "by a relative path": "cat ../outside/secret.txt",
    "by many dots": "cat ../../../../../../../../../../..$SECRET",
    "by the folder": 'cat "$(dirname "$SECRET")"/*',
    "by a link made inside": 'ln -s "$SECRET" link; cat link; ln -s .. up; cat up/outside/secret.txt',
    "by a hard link": 'ln "$SECRET" hard; cat hard; ln -L "$SECRET" hard; cat hard',
    "by the root of others": 'for each in /proc/[0-9]*; do cat "$each/root$SECRET"; done',
    "by the folder of others": 'for each in /proc/[0-9]*; do cat "$each/cwd/$SECRET"; done',
    "by what is open": "for each in /proc/[0-9]*/fd/*; do ls -l $each; dd if=$each bs=1000 count=1 iflag=nonblock; done",
    "by a mount": 'mkdir m; mount --bind "$(dirname "$SECRET")" m; cat m/secret.txt; umount /tmp; cat "$SECRET"',
    "by a new namespace": 'unshare -m cat "$SECRET"; unshare -Urm cat "$SECRET"; nsenter -t 1 -m cat "$SECRET"',
    "by another root": 'chroot / cat "$SECRET"; chroot /proc/1/root cat "$SECRET"',
    "by a disk": "mknod disk b 254 0; head -c 65536 disk; cat /dev/sd* /dev/vd* /dev/mem /dev/kmem /proc/kcore | head -c 1000",
    "by set-user-id": 'cp "$(command -v cat)" c && chmod u+s c && ./c "$SECRET"; sudo -n cat "$SECRET"; su -c "cat $SECRET"',
    "by the memory of others": "for each in /proc/[0-9]*; do head -c 100 $each/mem; cat $each/environ; done",
}


@pytest.mark.parametrize("way", READS)
def test_what_is_outside_cannot_be_read(confined: Runner, place: Place, way: str) -> None:
    before = place.snapshot()
    assert TOKEN not in confined.sh(READS[way]).text
    assert place.snapshot() == before


#: The same from Python, which takes the system's calls without a program between.
CALLS = {
    "by a descriptor of a folder": """
        for name in ("/", ".", "..", "/proc/self/root", "/proc/1/root", "/proc/1/cwd", "/proc/thread-self/root"):
            attempt(lambda: os.open(SECRET.lstrip("/"), os.O_RDONLY, dir_fd=os.open(name, os.O_RDONLY)))
            attempt(lambda: os.open("../" * 20 + SECRET.lstrip("/"), os.O_RDONLY, dir_fd=os.open(name, os.O_PATH)))
    """,
    "by inherited descriptors": """
        for number in range(1024):
            attempt(lambda: os.open("../" * 20 + SECRET.lstrip("/"), os.O_RDONLY, dir_fd=number))
            attempt(lambda: os.fchdir(number) or os.open(SECRET, os.O_RDONLY))
    """,
    "by a handle": """
        # name_to_handle_at and open_by_handle_at, with the root's inode as the handle
        handle = struct.pack("IiIIQ", 8, 1, 2, 0, 0)
        for where in ("/", ".", "/usr"):
            number = libc.syscall(304 if X86 else 265, os.open(where, os.O_RDONLY), handle, os.O_RDONLY)
            attempt(lambda: os.open(SECRET.lstrip("/"), os.O_RDONLY, dir_fd=number) if number >= 0 else None)
    """,
    "by the new calls of mounts": """
        tree = libc.syscall(428, -100, b"/proc/1/root", 1)
        attempt(lambda: os.open(SECRET.lstrip("/"), os.O_RDONLY, dir_fd=tree) if tree >= 0 else None)
        for kind in (b"tmpfs", b"proc", b"sysfs", b"overlay", b"ext4"):
            say(libc.syscall(430, kind, 0) >= 0 and "a file system can be made")
    """,
    "only with namespaces": """
        for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000, 0x80):
            say(libc.unshare(flag) == 0 and "unshared")
            say(libc.syscall(56 if X86 else 220, flag | 17, 0, 0, 0, 0) >= 0 and flag != 0x80 and "cloned")
        for name in os.listdir("/proc/self/ns"):
            attempt(lambda: say(libc.setns(os.open("/proc/1/ns/" + name, os.O_RDONLY), 0) == 0 and "entered"))
        say(libc.syscall(435, struct.pack("11Q", 0x10000000, *[0] * 3, 17, *[0] * 6), 88) >= 0 and "cloned")
    """,
    "by io_uring": """
        say(libc.syscall(425, 8, bytes(120)) >= 0 and "io_uring is there")
    """,
    "by the memory of its first process": """
        say(libc.ptrace(16, 1, 0, 0) == 0 and "traced")
        say(libc.syscall(310 if X86 else 270, 1, struct.pack("QQ", 0, 0), 1, struct.pack("QQ", 0, 0), 1, 0) >= 0 and "read")
        say(libc.syscall(438, libc.syscall(434, 1, 0), 0, 0) >= 0 and "its descriptor was taken")
        for what in ("environ", "mem", "maps", "auxv", "stack", "cwd", "root", "exe", "fd/0", "fd/1", "ns/mnt"):
            attempt(lambda: say(os.readlink(f"/proc/1/{what}") and "followed"))
            attempt(lambda: say(open(f"/proc/1/{what}", "rb").read(64) and "read " + what))
    """,
}
PRELUDE = """
import ctypes, os, platform, socket, struct
SECRET = os.environ["SECRET"]
X86 = platform.machine() == "x86_64"
libc = ctypes.CDLL(None, use_errno=True)
def say(what):
    if what: print("ESCAPED:", what)
def attempt(act):
    try: number = act()
    except OSError: return
    if isinstance(number, int) and number >= 0: say(os.read(number, 100))
"""


def outdented(script: str) -> str:
    return PRELUDE + "\n".join(line[8:] for line in script.splitlines())


@pytest.mark.parametrize("way", CALLS)
def test_no_call_of_the_system_leads_outside(confined: Runner, way: str) -> None:
    ended = confined.python(outdented(CALLS[way]))
    assert "Traceback" not in ended.text, ended.text
    assert TOKEN not in ended.text
    assert "ESCAPED" not in ended.text, ended.text


WRITES = {
    "by its path": 'echo no > "$SECRET"; echo no >> "$SECRET"; truncate -s 0 "$SECRET"; rm -f "$SECRET"',
    "beside it": 'touch "$(dirname "$SECRET")/new"; mkdir "$(dirname "$SECRET")/folder"',
    "by a link": 'ln -s "$SECRET" link; echo no > link; ln -s "$(dirname "$SECRET")" up; touch up/new; rm -f up/secret.txt',
    "by a rename": 'mv "$SECRET" taken; echo no > mine; mv mine "$SECRET"; mv mine ../outside/new',
    "what is readable": "echo no > ../reading/readable.txt; touch ../reading/new; chmod 777 ../reading/readable.txt; "
    "rm -f ../reading/readable.txt; mv ../reading moved; mv ../reading/readable.txt stolen",
    "its mode": 'chmod 777 "$SECRET"; chown 1:1 "$SECRET"; setfattr -n user.x -v y "$SECRET"; touch "$SECRET"',
}


@pytest.mark.parametrize("way", WRITES)
def test_what_is_outside_cannot_be_changed(confined: Runner, place: Place, way: str) -> None:
    before, mode = place.snapshot(), stat.S_IMODE(place.secret.stat().st_mode)
    confined.sh(WRITES[way])
    assert place.snapshot() == before
    assert stat.S_IMODE(place.secret.stat().st_mode) == mode


def test_the_system_cannot_be_changed(confined: Runner) -> None:
    script = """
    for each in / /usr /etc /usr/bin /proc/sys/kernel /dev /var /run /home /root; do touch $each/polypod-was-here && echo WRITTEN $each; done
    for each in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger /proc/sys/vm/drop_caches /etc/hosts; do
        (: >> $each) 2>/dev/null && echo WRITTEN $each; done
    true"""
    assert "WRITTEN" not in confined.sh(script).text


def test_links_that_lead_outside_lead_nowhere(confined: Runner, place: Place) -> None:
    (place.scope / "to-file").symlink_to(place.secret)
    (place.scope / "to-folder").symlink_to(place.outside)
    ended = confined.sh("cat to-file to-folder/secret.txt; echo no > to-file; touch to-folder/new")
    assert TOKEN not in ended.text
    assert place.secret.read_text() == TOKEN
    assert not (place.outside / "new").exists()


def test_devices_and_set_user_id_programs_in_the_scope_have_no_effect(confined: Runner, place: Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes them")
    os.mknod(place.scope / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    program = place.scope / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    os.chown(program, 12345, 12345)
    program.chmod(0o6755)
    ended = confined.sh("head -c 1 zero && echo READ; ./id")
    assert "READ" not in ended.text
    assert "12345" not in ended.text


# -- what is denied below what is allowed ------------------------------------------------------------


def denied(place: Place, *names: str, **more: Any) -> dict[str, Any]:
    return {"denied": tuple(str(place.scope / name) for name in names), **more}


def test_what_is_denied_below_what_is_allowed_is_neither_read_nor_changed(
    confined: Runner, place: Place
) -> None:
    (place.scope / "keys").mkdir()
    for name in ("keys/one", ".env"):
        (place.scope / name).write_text(TOKEN)
    script = """
    cat .env keys/one keys/* ./keys/../.env; cp .env copy; cp -r keys copies; cat copy copies/one
    ln .env hard; ln -s .env soft; cat hard soft; mv .env moved; mv keys moved-keys; cat moved moved-keys/one
    echo no > .env; rm -rf .env keys; echo no >> keys/one; touch keys/new; chmod -R 777 keys .env; cat .env keys/one
    tar c . | cat; git hash-object -w .env; python3 -c 'import shutil; shutil.move("keys", "k2")'
    """
    ended = confined.sh(script, **denied(place, "keys", ".env"))
    assert TOKEN not in ended.text
    assert (place.scope / ".env").read_text() == TOKEN
    assert [each.name for each in (place.scope / "keys").iterdir()] == ["one"]


def test_folders_around_what_is_denied_cannot_be_renamed_to_plant_it_anew(
    confined: Runner, place: Place
) -> None:
    (place.scope / "a/b/c").mkdir(parents=True)
    (place.scope / "a/b/c/denied").write_text(TOKEN)
    script = """
    mv a/b/c/denied x; mv a/b/c c2; mv a/b b2; mv a a2; mkdir -p a/b/c; echo planted > a/b/c/denied
    rm -rf a; mkdir -p a/b/c; echo planted > a/b/c/denied; cat a/b/c/denied; echo fine > a/b/c/other; mkdir a/new
    """
    ended = confined.sh(script, **denied(place, "a/b/c/denied"))
    assert TOKEN not in ended.text
    assert (place.scope / "a/b/c/denied").read_text() == TOKEN
    assert (place.scope / "a/b/c/other").read_text() == "fine\n"


def test_a_symlink_is_covered_as_a_file_is(confined: Runner, place: Place) -> None:
    """Nothing can be put in its place, and one that may be followed still leads where it did."""
    for name in ("denied", "kept"):
        (place.scope / name).symlink_to("target")
    (place.scope / "dangling").symlink_to("none")
    (place.scope / "target").write_text("content")
    script = """
    cat denied && echo READ; cat kept; ls dangling; rm -f denied kept dangling; ln -sfn other denied; ln -sfn other kept
    mv denied x; mv kept x; echo y > x; mv x kept; mv x denied
    """
    covered = denied(place, "denied", "dangling", read_only=(f"{place.scope}/kept",))
    text = confined.sh(script, **covered).text
    assert "READ" not in text
    assert "content" in text
    assert [str((place.scope / name).readlink()) for name in ("denied", "kept", "dangling")] == [
        "target",
        "target",
        "none",
    ]


def test_what_is_denied_and_does_not_exist_is_not_made(confined: Runner, place: Place) -> None:
    script = """
    echo planted > later; mkdir -p new/folder later2; echo planted > new/folder/x; mv new elsewhere; mkdir -p new
    echo planted > tmp; mv tmp later; ln -s /etc later; touch new/beside; true
    """
    names = ("later", "new/folder")
    confined.sh(script, **denied(place, *names))
    assert not (place.scope / "later").exists()
    assert not (place.scope / "new/folder").exists()
    assert (place.scope / "new/beside").exists()
    confined.sh("true", **denied(place, *names))
    assert sorted(each.name for each in place.scope.iterdir()) == ["later2", "new", "tmp"]


def test_a_name_is_reserved_until_the_last_that_needs_it_has_ended(confined: Runner, place: Place) -> None:
    async def two() -> None:
        first = await confined.start(
            ["sh", "-c", "read line; echo planted > later"], stdin="pipe", **denied(place, "later")
        )
        second = await confined.start(["sh", "-c", "true"], **denied(place, "later"))
        await second.wait()
        assert (place.scope / "later").exists()
        assert first.stdin is not None
        first.stdin.close()
        await first.wait()

    confined.call(two())
    assert not (place.scope / "later").exists()


def test_a_name_is_not_reserved_by_way_of_a_symlink(place: Place) -> None:
    (place.scope / "link").symlink_to(place.outside)
    before = place.snapshot()
    reservations = Reservations()
    reservations.reserve(os.fsencode(place.scope / "link" / name) for name in ("later", "new/config"))
    assert place.snapshot() == before
    reservations.release()
    assert place.snapshot() == before


def test_what_a_killed_warden_left_of_a_reserved_name_is_taken_away(confined: Runner, place: Place) -> None:
    (place.scope / "later").mkdir(mode=0o500)
    confined.sh("echo planted > later", **denied(place, "later"))
    assert not (place.scope / "later").exists()


def test_what_is_read_only_below_what_is_writable_stays_as_it_is(confined: Runner, place: Place) -> None:
    (place.scope / ".git/hooks").mkdir(parents=True)
    (place.scope / ".git/config").write_text("[core]\n")
    script = """
    cat .git/config; echo no >> .git/config; rm -rf .git/config .git/hooks; mv .git moved; mkdir -p .git/hooks
    echo evil > .git/hooks/pre-commit; mv .git/hooks h; echo evil > new; mv new .git/config; ln -sf /tmp .git/hooks
    echo ../evil > .git/commondir; rm -f .git/commondir; echo ../evil > .git/commondir; echo fine > .git/index
    """
    names = (".git/config", ".git/hooks", ".git/commondir")
    confined.sh(script, read_only=tuple(str(place.scope / name) for name in names))
    assert (place.scope / ".git/config").read_text() == "[core]\n"
    assert list((place.scope / ".git/hooks").iterdir()) == []
    assert sorted(each.name for each in (place.scope / ".git").iterdir()) == ["config", "hooks", "index"]


# -- what changes from outside meanwhile -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["replaced", "removed and made anew", "moved with its folder"])
def test_what_is_put_in_the_place_of_what_is_covered_is_covered_too(
    confined: Runner, place: Place, kind: str
) -> None:
    folder = place.scope / "sub"
    folder.mkdir()
    (folder / "denied").write_text("old")
    (folder / "kept").write_text("old")
    (place.outside / "new").mkdir()
    for name in ("denied", "kept"):
        (place.outside / "new" / name).write_text(TOKEN)

    async def replace() -> Ended:
        script = """
        echo up; read line
        while grep -q token sub/denied; do :; done
        while (echo planted > sub/kept); do :; done
        while (echo planted > sub/denied); do :; done
        echo covered; cat sub/kept
        """
        changes = {"denied": (f"{folder}/denied",), "read_only": (f"{folder}/kept",)}
        child = await confined.start(["sh", "-c", script], stdin="pipe", **changes)
        assert child.stdout is not None
        assert child.stdin is not None
        await child.stdout.readline()
        if kind == "replaced":
            for name in ("denied", "kept"):
                (place.outside / "new" / name).replace(folder / name)
        elif kind == "removed and made anew":
            for name in ("denied", "kept"):
                (folder / name).unlink()
                with contextlib.suppress(OSError):  # its place may be taken by then
                    (folder / name).write_text(TOKEN)
        else:
            folder.rename(place.scope / "moved")
            with contextlib.suppress(OSError):  # the same
                (place.outside / "new").rename(folder)
        await child.stdin.write(b"go\n")
        return await ended(child)

    reported = confined.call(replace())
    assert "covered" in reported.text


def test_what_a_person_puts_in_a_reserved_place_stays(confined: Runner, place: Place) -> None:
    async def replace() -> None:
        child = await confined.start(["cat"], stdin="pipe", **denied(place, "commondir", "folder"))
        assert child.stdin is not None
        (place.outside / "new").write_text("mine")
        (place.outside / "new").replace(place.scope / "commondir")
        (place.scope / "folder").chmod(0o700)
        (place.scope / "folder/file").write_text("mine")
        child.stdin.close()
        await ended(child)

    confined.call(replace())
    assert (place.scope / "commondir").read_text() == "mine"
    assert (place.scope / "folder/file").read_text() == "mine"


# -- sockets -----------------------------------------------------------------------------------------

SOCKETS = """
    for family, kind in [(f, k) for f in range(46) for k in (1, 2, 3, 5)]:
        for protocol in (0, 6, 17, 132, 262):
            attempt(lambda: say(socket.socket(family, kind, protocol) and f"a socket of family {family}"))
    attempt(lambda: say(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) and "a pair of datagram sockets"))
    one, two = socket.socketpair()
    one.send(b"fine"); print(two.recv(9))
"""


def test_without_network_there_is_no_socket_but_pairs(confined: Runner) -> None:
    ended = confined.python(outdented(SOCKETS.replace("\n    ", "\n        ")))
    assert "ESCAPED" not in ended.text, ended.text
    assert "fine" in ended.text


def test_with_network_there_is_the_internet_and_nothing_of_others(
    confined: Runner, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0polypod-{os.getpid()}-{place.root.name}")
    abstract.listen()
    by_path = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(place.outside)
    by_path.bind("s")
    by_path.listen()
    script = f"""
        socket.create_connection(("127.0.0.1", {listening.getsockname()[1]})).close()
        print("connected")
        attempt(lambda: socket.socket(socket.AF_UNIX).connect({abstract.getsockname()!r}) or say("by an abstract name"))
        attempt(lambda: socket.socket(socket.AF_UNIX).connect("../outside/s") or say("by a path"))
        for family in (17, 38, 40, 42, 44):
            attempt(lambda: say(socket.socket(family, 3) and f"a socket of family {{family}}"))
    """
    with listening, abstract, by_path:
        ended = confined.python(outdented(script), network=True)
    assert "connected" in ended.text, ended.text
    assert "ESCAPED" not in ended.text, ended.text


# -- ordinary work -----------------------------------------------------------------------------------


def test_ordinary_work_goes(confined: Runner, place: Place) -> None:
    script = """
    set -e
    echo one > a; cat a; mkdir -p b/c; mv a b/c/; ln -s b/c/a link; cat link; ln b/c/a hard; rm hard link; cp -r b d; rm -r d
    echo temp > /tmp/t; cat /tmp/t; echo home > ~/h; cat ~/h; echo x > /dev/null; head -c 4 /dev/urandom | wc -c
    (sleep 0.01; echo job) & wait; test -t 0 || echo no terminal; mktemp; cat ../reading/readable.txt
    test "$(ps -e -o pid= | wc -l)" -lt 20; kill -0 $$; sh -c 'kill $$' || echo killed
    """
    ended = confined.sh(script)
    assert ended.code == 0, ended.text
    assert "readable" in ended.text


def test_git_commits(confined: Runner, place: Place) -> None:
    git = ["git", "-C", str(place.scope), "-c", "init.defaultBranch=main"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "config", "user.email", "a@b"], check=True)
    subprocess.run([*git, "config", "user.name", "n"], check=True)
    read_only = tuple(str(place.scope / ".git" / name) for name in ("config", "hooks", "commondir"))
    ended = confined.sh(
        "set -e; echo 1 > f; git add f; git commit -qm one; git checkout -qb other; echo 2 > f; git commit -qam two; "
        "git stash list; git merge-base main other; git gc -q; git log --oneline; git fsck; git worktree list",
        read_only=read_only,
    )
    assert ended.code == 0, ended.text
    shown = subprocess.run([*git, "log", "--format=%s"], check=True, capture_output=True, text=True).stdout
    assert shown.split() == ["two", "one"]
    assert not (place.scope / ".git/commondir").exists()


def test_a_program_starts_where_it_is_asked_to_and_says_where_it_cannot(
    confined: Runner, place: Place
) -> None:
    assert confined.sh("pwd", cwd=place.reading).text == f"{place.reading}\n"
    with pytest.raises(Exception, match="its working folder: No such file"):
        confined.sh("pwd", cwd=place.outside)
    with pytest.raises(Exception, match="cannot start polypod-no-such: No such file"):
        confined.run(["polypod-no-such"])


def test_covers_are_never_renewed_in_the_mounts_of_all(place: Place) -> None:
    before = Path("/proc/self/mounts").read_text()
    covered = place.scope / "covered"
    covered.mkdir()
    view = View(os.fsencode(place.home), (), (), (os.fsencode(covered),), (), (), (), (), ())
    covers = Covers(view, lambda _: None)
    covered.rmdir()
    covered.mkdir()
    covers.renew()  # before its program has entered its view
    os.close(covers.changed)
    assert Path("/proc/self/mounts").read_text() == before
