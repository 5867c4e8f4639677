"""Makes .venv for this repository, fills it, and builds the package into it.

    python tools/setup_env.py GROUP...     groups of pyproject.toml; "build" compiles the package
    python tools/setup_env.py wheel        installs from the folder or file WHEEL, without a network

`make` calls it. Whatever is installed stays, so a second call does nothing and needs no network.

1. A usable PyTorch of this Python is reused: .venv sees the packages of that Python. Otherwise
   PyTorch is downloaded into .venv (environment variable TORCH: the requirement for pip).
2. Missing packages are installed. One that pip cannot install is left out, and named.
3. The package is built and installed as editable, where a source or a setting has changed.
   With "wheel", it and missing packages come from the folder that `make gpu-wheel` has filled.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import runpy
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
ORIGIN = VENV / "made-with"  # the Python that .venv was made with
DEFAULT_TORCH = "torch==2.13.0"
DEFAULT_TRITON = "triton==3.6.0"  # if there is none; a newer one that came with PyTorch stays
# Tests read its files. It is in no group: mmcv, which it depends on, takes long to build.
OPENMIXUP = "openmixup>=0.2.9"
MIN_TORCH = (2, 10)
MUST = ("pytest", "setuptools")
PROGRAMS = ("ninja", "ruff", "mypy", "clang-format")


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


# ------------------------------------------------------------------ 1. the environment, by PYTHON


def torch_version() -> str | None:
    """The version of PyTorch that this Python sees, found without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = os.path.join(spec.submodule_search_locations[0], "version.py")
    return str(runpy.run_path(path)["__version__"]) if os.path.exists(path) else None


def is_usable(version: str | None) -> bool:
    return version is not None and tuple(map(int, version.split(".")[:2])) >= MIN_TORCH


def show_packages_of(parents: list[str], environment: Path) -> None:
    """Makes an environment see the packages of another, by its site-packages folders."""
    lines = (f"import site; site.addsitedir({path!r})\n" for path in parents)
    target = next(environment.glob("lib*/python*/site-packages"))
    (target / "parent_environment.pth").write_text("".join(lines))


def make_venv() -> None:
    mine = f"{sys.executable} {sys.version.split()[0]}"
    if (BIN / "python").exists():
        before = ORIGIN.read_text().strip() if ORIGIN.exists() else None
        if before in (None, mine):
            return
        say(f"making .venv again: it was made with {before}, asked for is {mine}")
        shutil.rmtree(VENV)
    elif VENV.exists():
        say("making .venv again: it holds no working Python")
        shutil.rmtree(VENV)
    version = torch_version()
    keep = is_usable(version)
    nested = sys.prefix != sys.base_prefix  # this Python lives in a virtual environment itself
    if keep:
        say(f"making .venv on top of {sys.executable}, which has PyTorch {version}")
    else:
        why = f"PyTorch {version}, too old" if version else "no PyTorch"
        say(f"making .venv with {sys.executable} ({why})")
    try:
        # Some systems lack ensurepip; .venv then sees their pip among their packages.
        own_pip = importlib.util.find_spec("ensurepip") is not None or not keep
        venv.create(VENV, with_pip=own_pip, symlinks=True, system_site_packages=keep and not nested)
    except (subprocess.CalledProcessError, OSError) as error:
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit(
            f"setup: this Python cannot make a virtual environment ({error}); install its venv "
            "and pip (on Debian: apt install python3-venv), or pass another: make PYTHON=..."
        )
    if keep and nested:
        # System site packages would be those of the Python below, not of this environment.
        show_packages_of(site.getsitepackages(), VENV)
    if keep:
        # The path shows packages of the parent, but not their programs.
        for name in PROGRAMS:
            program = Path(sysconfig.get_path("scripts"), name)
            if program.exists() and not (BIN / name).exists():
                (BIN / name).symlink_to(program)
    ORIGIN.write_text(mine + "\n")


# ------------------------------------------------------------------ 2. packages, inside .venv


def groups() -> dict[str, list[str]]:
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        from pip._vendor import tomli as tomllib  # type: ignore[no-redef]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)
    build = [r for r in project["build-system"]["requires"] if not r.startswith("torch")]
    return {"build": build, **project["project"]["optional-dependencies"]}


def find_missing(requirements: list[str]) -> list[str]:
    """The requirements of this platform that no installed version satisfies."""
    from pip._vendor.packaging.requirements import Requirement

    out = []
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
            satisfied = requirement.specifier.contains(version, prereleases=True)
        except importlib.metadata.PackageNotFoundError:
            # Some programs come from the system's packages, without a Python package.
            satisfied = requirement.name == "ninja" and shutil.which("ninja") is not None
        if not satisfied:
            out.append(text)
    return out


def pip(*arguments: str, quiet: bool = True) -> bool:
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["--quiet"] if quiet else []
    return subprocess.run([*command, *arguments], stdin=subprocess.DEVNULL).returncode == 0


def torchvision_for(torch: str | None) -> str:
    """The torchvision for this PyTorch: 0.25 came with 2.10, and minor versions rise together."""
    minor = int(str(torch).split(".")[1])
    return f"torchvision==0.{minor + 15}.*"


def install(names: list[str]) -> None:
    if not is_usable(torch_version()):
        wanted = os.environ.get("TORCH") or DEFAULT_TORCH
        say(f"installing {wanted}")
        if not pip(wanted):
            sys.exit(
                f"setup: {wanted} could not be installed. Without a network, pass a Python that "
                "has PyTorch: make PYTHON=/path/to/python; or choose another: make TORCH='torch==…'"
            )
    known = groups()
    wanted = [r for name in names for r in known[name]]
    left_out = []
    absent = find_missing(list(dict.fromkeys(wanted)))
    for requirement in [r for r in absent if r.startswith("torchvision")]:
        # With dependencies pip would replace PyTorch by the one for the newest torchvision.
        absent.remove(requirement)
        fitting = torchvision_for(torch_version())
        say(f"installing {fitting}")
        if not pip("--no-deps", fitting):
            left_out.append(fitting)
            # timm needs torchvision, and pip would choose another one.
            absent = [r for r in absent if not r.startswith("timm")]
    for requirement in find_missing([OPENMIXUP] if "test" in names else []):
        say(f"installing {requirement}")
        if not pip("--no-deps", requirement):
            left_out.append(requirement)
    absent = [DEFAULT_TRITON if r.startswith("triton") else r for r in absent]
    if absent:
        say(f"installing {', '.join(r.split(';')[0] for r in absent)}")
        # All at once is quicker; one by one tells which of them fail.
        if not pip(*absent, quiet=True):
            say("not all of them could be installed; trying one by one")
            left_out += [r for r in absent if not pip(r)]
    for requirement in left_out:
        say(f"left out: {requirement.split(';')[0]} could not be installed (no network?)")
        package = requirement.split(">")[0]
        if package in MUST and importlib.util.find_spec(package) is None:
            sys.exit(f"setup: {package} is needed")


# ------------------------------------------------------------------ 3. the package


def build() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    import build_support as support

    try:
        torch = support.find_torch()
        info = ROOT / "fused_mixup" / "_build_info.py"
        built = runpy.run_path(str(info)) if info.exists() else {}
        modules = [f"{name}.*so" for name in built.get("MODULES", [])]
        installed = any(VENV.glob("lib*/python*/site-packages/fused_mixup-*.dist-info"))
        same = built.get("FINGERPRINT") == support.fingerprint(torch)
        # pip cannot install without bdist_wheel; it may be missing where there is no network.
        in_place = importlib.util.find_spec("wheel") is None and find_missing(["setuptools>=70.1"])
        if (installed or in_place) and same and all(any(info.parent.glob(m)) for m in modules):
            return
        settings = support.find_settings()
    except support.BuildError as error:
        sys.exit(f"setup: {error}")
    print(support.summary(settings), flush=True)
    if settings.modules:
        say("compiling" + (", this takes some minutes" if "_C_cuda" in settings.modules else ""))
    verbose = ["-v"] if os.environ.get("VERBOSE") else []
    if in_place:
        say("no wheel package: building inside the source tree, without installing")
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL).returncode != 0:
            sys.exit("setup: the build failed; see above")
    elif not pip("--no-build-isolation", "--no-deps", *verbose, "-e", str(ROOT), quiet=not verbose):
        sys.exit("setup: the build failed; see above, or run again with VERBOSE=1")


# ------------------------------------------------------------------ the package, from a wheel


def find_wheels(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The newest usable wheel of each package by name, and the names of unusable wheels."""
    from pip._vendor.packaging.tags import sys_tags
    from pip._vendor.packaging.utils import parse_wheel_filename

    tags, found, others = set(sys_tags()), {}, []
    for path in sorted(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime):
        name, _, _, made_for = parse_wheel_filename(path.name)
        if tags.isdisjoint(made_for):
            others.append(path.name)
        else:
            found[str(name)] = path
    return found, others


def install_wheel(chosen: str) -> None:
    path = Path(chosen).expanduser().resolve()
    folder = path if path.is_dir() else path.parent
    wheels, others = find_wheels(folder)
    if path.is_file():
        wheels["fused-mixup"] = path
    if "fused-mixup" not in wheels:
        sys.exit(f"setup: WHEEL={chosen}: no wheel of fused_mixup for this Python is there")
    if not is_usable(torch_version()):
        sys.exit(
            f"setup: the wheel needs PyTorch {MIN_TORCH[0]}.{MIN_TORCH[1]} or newer, this Python "
            f"has {torch_version() or 'none'}; make PYTHON=… names another"
        )
    ours = wheels.pop("fused-mixup")
    known = groups()
    wanted = find_missing([*known["test"], *known["bench"]])
    unsatisfied = {requirement_name(text) for text in wanted}
    # A package in no group is a dependency of one in a group.
    absent = [
        wheel for name, wheel in wheels.items() if name in unsatisfied or not is_installed(name)
    ]
    names = ", ".join(p.name.partition("-")[0] for p in (ours, *absent))
    say(f"installing {names}; nothing is compiled")
    offline = ("--no-index", "--no-deps")
    if not pip(*offline, "--force-reinstall", str(ours)):
        sys.exit(f"setup: {ours.name} could not be installed; see above")
    if absent and not pip(*offline, *map(str, absent)):
        say("not all of them could be installed; trying one by one")
        others += [p.name for p in absent if not pip(*offline, str(p))]
    for name in (name for name in others if not is_installed(name.partition("-")[0])):
        say(f"left out: {name} is for another Python or system")
    for text in find_missing([*known["test"], *known["bench"]]):
        say(f"left out: {text.split(';')[0]} is neither here nor in {folder}")
        package = requirement_name(text)
        if package in MUST and importlib.util.find_spec(package) is None:
            sys.exit(f"setup: {package} is needed")


def requirement_name(text: str) -> str:
    from pip._vendor.packaging.requirements import Requirement
    from pip._vendor.packaging.utils import canonicalize_name

    return str(canonicalize_name(Requirement(text).name))


def is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main() -> None:
    os.environ["PATH"] = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    if Path(sys.prefix).resolve() != VENV.resolve():
        make_venv()
        os.execv(BIN / "python", [str(BIN / "python"), *sys.argv])
    names = [name for name in sys.argv[1:] if name != "nothing"]
    if names == ["wheel"]:
        install_wheel(os.environ["WHEEL"])
        return
    install(names)
    if "build" in names:
        build()


if __name__ == "__main__":
    main()
