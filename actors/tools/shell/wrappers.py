"""Which programs run others, and where in their words those stand; data only."""

from __future__ import annotations

import re

_PREFIX_NAMES = """
env sudo doas su runuser nohup nice ionice time timeout gtimeout stdbuf setsid command builtin exec
watch strace ltrace chroot unshare nsenter busybox toybox taskset chrt flock script setpriv unbuffer
systemd-run systemd-inhibit firejail bwrap proxychains proxychains4 torsocks torify ssh mosh entr
watchexec nodemon caffeinate dbus-run-session dbus-launch xvfb-run fakeroot proot gosu su-exec pkexec sg
runcon prlimit choom cpulimit chronic rlwrap faketime eatmydata valgrind perf hyperfine start-stop-
daemon tini dumb-init dtach abduco tmux screen zellij npx bunx uvx cross-env
"""
#: What runs the words behind it, some of them perhaps its own.
PREFIXES = frozenset(_PREFIX_NAMES.split())
#: What does so behind one of these words.
RUNNERS: dict[str, frozenset[str]] = {
    "git": frozenset({"bisect", "submodule", "rebase", "filter-branch", "difftool", "mergetool"}),
    "npm": frozenset({"exec", "x"}),
    "pnpm": frozenset({"exec", "dlx"}),
    "yarn": frozenset({"exec", "dlx", "run"}),
    "bun": frozenset({"x", "run"}),
    **dict.fromkeys(("uv", "pipx", "poetry", "pdm", "hatch", "rye", "pixi"), frozenset({"run", "exec"})),
    **dict.fromkeys(("conda", "mamba", "micromamba", "rustup", "op", "dotenv"), frozenset({"run"})),
    **dict.fromkeys(("direnv", "bundle", "rbenv", "pyenv", "asdf", "aws-vault"), frozenset({"exec"})),
    **dict.fromkeys(("opam", "stack", "mise", "volta", "doppler"), frozenset({"exec", "x", "run"})),
    **dict.fromkeys(("docker", "podman", "nerdctl", "kubectl"), frozenset({"exec", "run"})),
    **dict.fromkeys(("nix", "nix-shell"), frozenset({"run", "shell", "develop", "--run", "--command"})),
}
#: What types words into a shell key by key, behind a word that begins so.
TYPES = {"tmux": "send", "screen": "-X", "zellij": "action"}
#: What puts words of its own in the place of a mark in those that it runs.
FILLS = frozenset({"xargs", "parallel"})
#: The usual marks; the options with another one in them, and those before one; and those before any value.
MARKS = re.compile(r"\{[^{}\s]*\}")
NAMES_MARK = re.compile(r"-(?:\w*?[IJi]|-replace=)(.*)", re.DOTALL)
MARK_FOLLOWS = re.compile(r"-\w*[IJ]\Z")
VALUE_FOLLOWS = re.compile(r"-\w*[nPdaELsjNS]\Z|--[^=]*\Z")
#: What runs what it reads as its input.
RUNS_INPUT = frozenset({"at", "batch", "crontab", "parallel"})
_EXECS = frozenset({"-exec", "-execdir", "-ok", "-okdir", "-x", "-X", "--exec", "--exec-batch"})
#: The words behind which a command of that name runs another.
STARTERS = dict.fromkeys(("find", "fd", "fdfind"), _EXECS)
#: How settings of git begin whose values are not programs.
NO_PROGRAMS = ("user.", "author.", "committer.", "color.", "i18n.")
