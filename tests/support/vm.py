"""A virtual machine for what this machine's kernel may lack: Debian's own kernel, software emulation.

The guest sees this machine's whole file system read-only, under an overlay in its memory that takes what it
writes, so the same checkout, virtual environment and programs are there. One directory is shared both ways:

    with tempfile.TemporaryDirectory() as shared:
        status = run_in_guest("echo hello >/shared/said", Path(shared), seconds=60)

It boots in a few seconds and runs several times slower than this machine: for function, not for timing. KVM
is not used: where machines are virtual already, its device may be there and hang. What is opened often (the
checkout, Python) the guest has in its memory from the start: each opening of a file elsewhere asks this
machine several times.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_rng")
QEMU = "qemu-system-x86_64"
SHARED = "/shared"
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("kad", "kad_vrrp", "kad_check", "kad_bfd", "tests")
LEFT_OUT = (
    ".*",
    "*.dist-info",
    "config-*",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "mypy",
    "mypyc",
    "*__mypyc*",
    "pip",
)
LEFT_OUT += ("ruff", "setuptools", "site-packages", "test", "tkinter", "turtledemo")
"""Of the directories in memory: large, and of no use there."""
_INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for module in $(cat /modules/order); do insmod /modules/$module || echo "no $module"; done
mkdir -p /lower /upper /root
nine="-t 9p -o trans=virtio,version=9p2000.L,msize=524288"
mount $nine,ro,cache=loose lower /lower || echo "no root file system"
mount -t tmpfs -o size=75% upper /upper
mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /root
mkdir -p /root/shared
for place in proc sys dev run; do
    case $place in
        proc) mount -t proc proc /root/proc ;;
        sys) mount -t sysfs sys /root/sys ;;
        dev) mount -t devtmpfs dev /root/dev ;;
        *) mount -t tmpfs $place /root/$place ;;
    esac
done
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs shm /root/dev/shm
mount $nine,rw,cache=none shared /root/shared || echo "no shared directory"
ip link set lo up
hostname guest
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
umount /proc /dev
while read -r place; do mount -o bind "/at_hand$place" "/root$place"; done </at_hand/list
# Not chroot alone: the kernel's own helper processes (modprobe) have to see the new root too. switch_root
# would empty the old one.
cd /root
mount -o move . /
exec chroot . /bin/sh -c '
    /bin/sh -c ". /shared/.job" >/shared/.output 2>&1 </dev/null
    echo $? >/shared/.status
    sync
    /bin/busybox poweroff -f
'
"""


def kernel_release() -> str:
    """The newest of Debian's kernels that is installed with its modules; "": none."""
    found = [
        path.name
        for path in Path("/lib/modules").glob("*-amd64")
        if Path(f"/boot/vmlinuz-{path.name}").exists()
    ]
    return max(
        found,
        key=lambda name: [int(part) if part.isdigit() else 0 for part in name.replace("-", ".").split(".")],
        default="",
    )


def reason_not_possible() -> str:
    """Why no guest can be run here; "" when one can."""
    if not shutil.which(QEMU):
        return f"{QEMU} is not installed (make packages)"
    if not kernel_release():
        return "no Debian kernel in /boot (make packages)"
    if not Path("/bin/busybox").exists() or b"statically" not in _kind_of("/bin/busybox"):
        return "no static busybox (make packages)"
    return ""


def _kind_of(program: str) -> bytes:
    """A program without an interpreter segment needs no libraries."""
    listed = subprocess.run(["ldd", program], capture_output=True, check=False)
    return b"statically" if b"not a dynamic" in listed.stderr + listed.stdout else b""


def run_in_guest(job: str, shared: Path, *, seconds: float, memory: str = "2G", processors: int = 1) -> int:
    """Run a shell script as root in a fresh guest, with ``shared`` as /shared; its exit status.

    One processor costs least: emulated ones wait for each other. Several guests at a time are no matter.

    What it printed is in ``shared/.output``, the console in ``shared/.console``. Raises RuntimeError, with
    the console's end, for a guest that did not come up or did not end in time.
    """
    (shared / ".job").write_text(job)
    status = shared / ".status"
    status.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="kad-vm-") as scratch:
        image = Path(scratch, "initramfs")
        _write_initramfs(image, kernel_release())
        argv = _command(image, shared, memory, processors)
        try:
            ended = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the guest did not end within {seconds} s\n{_console(shared)}") from None
    if not status.exists():
        how = f"{QEMU} ended with {ended.returncode}: {ended.stderr[-1000:]!r}"
        raise RuntimeError(f"the guest left no status; {how}\n{_console(shared)}")
    return int(status.read_text())


def _console(shared: Path) -> str:
    parts = [shared / ".output", shared / ".console"]
    return "\n".join(part.read_text(errors="replace")[-3000:] for part in parts if part.exists())


def _command(image: Path, shared: Path, memory: str, processors: int) -> list[str]:
    def share(path: str, tag: str, *options: str) -> list[str]:
        words = (
            "local",
            f"path={path}",
            f"mount_tag={tag}",
            "security_model=none",
            "multidevs=remap",
            *options,
        )
        return ["-virtfs", ",".join(words)]

    return [
        # Not to be left behind by a test run that is killed.
        *("setpriv", "--pdeathsig", "KILL", QEMU),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-cpu", "qemu64,+rdrand", "-smp", str(processors), "-m", memory),
        *("-accel", "tcg,thread=multi,tb-size=1024"),
        *("-kernel", f"/boot/vmlinuz-{kernel_release()}", "-initrd", str(image)),
        *(
            "-append",
            "console=ttyS0 quiet panic=-1 random.trust_cpu=on mitigations=off audit=0 "
            # Not the processor's clock: its rate is misjudged at boot where this machine is busy, and
            # time in the guest runs several times too fast.
            "clocksource=hpet "
            # The kernel's trial of its timer fails where this machine is busy: then the guest stands still.
            "no_timer_check",
        ),
        *("-serial", f"file:{shared}/.console"),
        *("-device", "virtio-rng-pci"),
        *share("/", "lower", "readonly=on"),
        *share(str(shared), "shared"),
    ]


# The initial file system --------------------------------------------------------------------------------


def _write_initramfs(image: Path, release: str) -> None:
    """Not compressed: unpacking is what takes time in a guest."""
    order: list[str] = []
    with image.open("wb") as out:
        for name in ("bin", "dev", "proc", "modules", "root", "at_hand"):
            out.write(_entry(name, stat.S_IFDIR | 0o755, b""))
        for path in _module_files(release):
            order.append(path.name)
            out.write(_entry(f"modules/{path.name}", stat.S_IFREG | 0o644, path.read_bytes()))
        out.write(_entry("modules/order", stat.S_IFREG | 0o644, "\n".join(order).encode()))
        out.write(_entry("bin/busybox", stat.S_IFREG | 0o755, Path("/bin/busybox").read_bytes()))
        out.write(_entry("init", stat.S_IFREG | 0o755, _INIT.encode()))
        directories = _directories_at_hand()
        listed = "".join(f"{path}\n" for path in directories).encode()
        out.write(_entry("at_hand/list", stat.S_IFREG | 0o644, listed))
        for parent in sorted({parent for path in directories for parent in path.parents}):
            out.write(_entry(f"at_hand{parent}", stat.S_IFDIR | 0o755, b""))
        for path in directories:
            out.writelines(_tree(path))
        out.write(_entry("TRAILER!!!", 0, b""))


def _directories_at_hand() -> list[Path]:
    paths = sysconfig.get_paths()
    python = {Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return sorted({*python, *(ROOT / name for name in PACKAGES)})


def _tree(top: Path) -> Iterator[bytes]:
    yield _entry(f"at_hand{top}", stat.S_IFDIR | 0o755, b"")
    for path in sorted(top.iterdir()):
        if any(path.match(pattern) for pattern in LEFT_OUT):
            continue
        about = path.lstat()
        mode, changed = about.st_mode, int(about.st_mtime)
        if stat.S_ISDIR(mode):
            yield from _tree(path)
        elif stat.S_ISLNK(mode):
            yield _entry(f"at_hand{path}", mode, os.readlink(path).encode())
        elif stat.S_ISREG(mode):
            # Compiled modules are only taken for what they are with the time of their source.
            yield _entry(f"at_hand{path}", mode, path.read_bytes(), changed)


def _module_files(release: str) -> list[Path]:
    """What the guest loads before it has a file system, each after what it needs."""
    found: dict[Path, None] = {}
    for module in MODULES:
        argv = ["modprobe", "--set-version", release, "--show-depends", module]
        listed = subprocess.run(
            argv, capture_output=True, text=True, check=True, env={**os.environ, "PATH": _PATH}
        )
        for line in listed.stdout.splitlines():
            if line.startswith("insmod "):
                found[Path(line.split()[1])] = None
    return list(found)


_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


def _entry(name: str, mode: int, data: bytes, changed: int = 0) -> bytes:
    """One member of a cpio archive in the form the kernel reads (newc). ``changed``: seconds since 1970."""
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, changed, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
