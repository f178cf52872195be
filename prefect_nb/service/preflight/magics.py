"""The magics that a notebook can count on, and what they do to its names."""

from prefect_nb.service.text import nearest

_LINE = """
alias alias_magic autoawait autocall automagic autosave bookmark cat cd clear code_wrap colors conda config connect_info
cp debug dhist dirs doctest_mode ed edit env gui hist history killbgscripts ldir less lf lk ll load load_ext loadpy logoff
logon logstart logstate logstop ls lsmagic lx macro magic mamba man matplotlib micromamba mkdir more mv notebook page
pastebin pdb pdef pdoc pfile pinfo pinfo2 pip popd pprint precision prun psearch psource pushd pwd pycat pylab qtconsole
quickref recall rehashx reload_ext rep rerun reset reset_selective rm rmdir run save sc set_env store subshell sx system
tb time timeit unalias unload_ext uv who who_ls whos xdel xmode
"""
_CELL = """
! HTML SVG bash capture code_wrap debug file html javascript js latex markdown perl prun pypy python python2 python3 ruby
script sh svg sx system time timeit writefile
"""
BUILT_IN = {"line": frozenset(_LINE.split()), "cell": frozenset(_CELL.split())}

OURS = {
    "line": frozenset({"flow", "runs", "why", "preflight", "diff", "resume", "load_task", "prefect"}),
    "cell": frozenset({"flow", "task", "prefect"}),
}
"""What `%load_ext prefect_nb` adds."""

_OF_EXTENSIONS = {
    "autoreload": "autoreload aimport",
    "storemagic": "store",
    "Cython": "cython cython_inline cython_pyximport",
    "cython": "cython cython_inline cython_pyximport",
    "dotenv": "dotenv",
    "line_profiler": "lprun lprun_all",
    "memory_profiler": "memit mprun",
    "memray": "memray_flamegraph",
    "pyinstrument": "pyinstrument",
    "rpy2.ipython": "R Rpush Rpull Rget Rdevice",
    "snakeviz": "snakeviz",
    "sql": "sql sqlplot sqlcmd config",
    "tensorboard": "tensorboard",
    "watermark": "watermark",
    "pgcli": "pgcli",
    "prefect_nb": "",
}
IN_IPYTHON = frozenset({"autoreload", "storemagic", "deduperreload"})
"""Extensions that come with IPython."""

PYTHON_CELLS = frozenset({"time", "capture", "prun", "debug", "code_wrap", "flow", "task", "prefect", "snakeviz"}) | {
    "pyinstrument", "mprun", "memit", "memray_flamegraph", "timeit",
}  # fmt: skip
"""Cell magics whose body is Python of the notebook."""
TEXT_CELLS = BUILT_IN["cell"] - PYTHON_CELLS | {"R", "cython"}
"""Cell magics whose body is something else."""
PYTHON_LINES = frozenset({"time", "timeit", "prun", "memit", "lprun"})
"""Line magics that run a statement."""
DYNAMIC_LINES = frozenset(
    {"run", "pylab", "load", "loadpy", "store", "macro", "rerun", "recall", "rep", "Rget", "Rpull"}
)
"""Line magics that may bind any names."""


def known_after(extensions: set[str], kind: str) -> frozenset[str]:
    """The magics there are once these extensions are loaded."""
    names = BUILT_IN[kind]
    for extension in extensions:
        names |= frozenset(_OF_EXTENSIONS.get(extension, "").split())
    return names | OURS[kind] if "prefect_nb" in extensions else names


def extension_of(name: str) -> str | None:
    """The extension that has the magic; None if none is known to."""
    if name in OURS["line"] | OURS["cell"]:
        return "prefect_nb"
    return next((extension for extension, names in _OF_EXTENSIONS.items() if name in names.split()), None)


def is_unknown(extension: str) -> bool:
    """Whether it is not known which magics the extension has."""
    return extension not in _OF_EXTENSIONS


def like(name: str, kind: str) -> str | None:
    """The magic of that kind whose name is spelled most like this one."""
    near = nearest(name, sorted(BUILT_IN[kind] | OURS[kind]), 1)
    return near[0] if near else None
