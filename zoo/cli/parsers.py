"""The options of every verb, as argparse parsers whose help fits one screen. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable
from typing import NoReturn

from zoo.errors import UsageError

LIGHTNING_VERBS = ("fit", "validate", "test", "predict")
PRESETS = "nano, paper, ... (zoo list models)"

OVERVIEW = """usage: zoo VERB [OPTIONS]            zoo VERB --help explains one verb

inpainting methods under one data contract, one set of masks and one benchmark

  zoo benchmark                         compare the shipped methods on built-in scenes; downloads nothing
  zoo fit --model deepfill              train a method (add --data coco --data.root DIR for photographs)
  zoo inpaint --model deepfill --image F --mask F --out DIR

verbs
  fit         train a method, stage by stage; --resume auto goes on where it stopped
  validate    score weights on the validation split
  test        score weights on the test split
  predict     complete the test split and write the images
  benchmark   one plan, many methods, the same masked images: a table, a strip, a page
  report      the table and the page of a finished run
  inpaint     complete your own images
  masks       make | verify | show        mask manifests
  data        prepare | verify | info     datasets
  weights     list | pull | convert | verify
  list        models | datasets | masks | metrics | suites | protocols
  doctor      what is installed, and what is wrong with it

everywhere    --debug shows tracebacks, --offline forbids downloads, --version
exit codes    0 done, 1 a bug, 2 usage, 3 data or masks, 4 weights, 5 finished with failures, 130 and 143 stopped
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` instead of leaving the process."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            add_help=False,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=32, width=110),
        )
        self.add_argument("-h", "--help", action="store_true", help="show this page")

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, where=self.prog, remedy=f"{self.prog} --help")

    def parse_all(self, argv: list[str]) -> argparse.Namespace:
        """Parses a whole command line.

        Raises:
            UsageError: An option is unknown (with the nearest one), or a value does not fit.
        """
        known, rest = self.parse_known_args(argv)
        for argument in rest:
            if argument.startswith("-"):
                option = argument.partition("=")[0]
                near = difflib.get_close_matches(option, self.options(), n=3)
                hint = f"did you mean {' or '.join(near)}? " if near else ""
                raise UsageError(f"unknown option '{option}'", remedy=f"{hint}{self.prog} --help lists the options")
            raise UsageError(f"unexpected argument '{argument}'", where=self.prog, remedy=f"{self.prog} --help")
        return known

    def options(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings if option.startswith("--")]


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    value = _integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def not_negative(text: str) -> int:
    """An integer of at least 0, for argparse."""
    value = _integer(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def fraction(text: str) -> float:
    """A number strictly between 0 and 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {text}")
    return value


def shard(text: str) -> tuple[int, int]:
    """`i/n` with 1 <= i <= n, as (i - 1, n), for argparse."""
    first, _, last = text.partition("/")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"'{text}' is not i/n with 1 <= i <= n, such as 1/4")
    return int(first) - 1, int(last)


def named_path(text: str) -> tuple[str, str]:
    """`NAME=PATH`, for argparse."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=PATH")
    return name, path


def lightning_parser(verb: str) -> Parser:
    """The short options of `fit`, `validate`, `test` and `predict`; everything dotted is LightningCLI's."""
    purpose = {
        "fit": "Train a method. What is chosen for you is printed, and saved as RUN/config.yaml.",
        "validate": "Score a method on the validation split of a dataset.",
        "test": "Score a method on the test split of a dataset.",
        "predict": "Complete the test split of a dataset and write the images.",
    }[verb]
    examples = f"""more options, in any number (zoo {verb} --help-all lists them)
  --model.lr 1e-4 --data.root DIR --data.batch_size 16 --trainer.max_steps 2000 --trainer.devices 4
  --trainer.precision bf16-mixed --trainer.accelerator gpu"""
    parser = Parser(f"zoo {verb}", purpose, examples)
    add = parser.add_argument
    add("--model", metavar="NAME", action="append", default=[], help="deepfill, ... or package.module.Class")
    add(
        "--data",
        "--dataset",
        metavar="NAME",
        action="append",
        default=[],
        help="shapes (default), coco, ...: zoo list datasets",
    )
    role = "training mixture, such as freeform,object,center" if verb == "fit" else "kind of mask, such as object"
    add("--mask", metavar="KIND", help=role)
    add("--preset", metavar="NAME", help=f"recipe, {PRESETS}; shapes implies nano, other data paper")
    add("--config", "-c", metavar="FILE", action="append", default=[], help="YAML over the recipe; may replace --model")
    add("--size", metavar="N", type=positive, help="image size in pixels, of the data and the method")
    add("--seed", metavar="N", type=not_negative, help="seed of everything")
    add("--out", metavar="RUN", help="run folder; default runs/METHOD-PRESET")
    add("--resume", metavar="auto|PATH", help="go on from a run's last checkpoint, or from this one")
    if verb == "fit":
        add("--stage", metavar="NAME", help="train this stage alone")
        add("--ema", metavar="DECAY", type=fraction, help="keep a moving average of the weights, such as 0.999")
        add("--save-every", metavar="N", type=positive, help="iterations between checkpoints (500)")
    else:
        add("--weights", metavar="FILE", help="safetensors; default: the run's, a pulled one, or the shipped one")
    add("--help-all", action="store_true", help="every option of the method, the data and the trainer")
    return parser


def benchmark_parser() -> Parser:
    parser = Parser(
        "zoo benchmark",
        "Compare methods on the same masked images. Alone: shapes, object masks, every shipped nano model\n"
        "and the controls, with nothing to download. The same command again does only what is missing.",
    )
    add = parser.add_argument
    datasets = "shapes (default), coco, ...: zoo list datasets"
    add("--dataset", "--data", dest="data", metavar="NAME", action="append", default=[], help=datasets)
    add("--mask", metavar="KIND", help="object (default), center, freeform, irregular:10-20, file, ...")
    add("--models", metavar="A,B", help="methods, controls, dotted paths, NAME@LABEL=WEIGHTS; default all that fit")
    add("--suite", metavar="NAME", help="a set of these options (zoo list suites), or a YAML file")
    add("--protocol", metavar="NAME", help="a paper's images, masks and metrics (zoo list protocols)")
    add("--metrics", metavar="A,B", help="besides those of every run: lpips, fid, kid, ids, clip_score, tdanet, ...")
    add("--features-files", metavar="NET=FILE,...", help="their networks' weights: inception, alexnet, vgg16, clip")
    add("--preset", metavar="NAME", help=f"whose weights: {PRESETS}")
    add("--weights", metavar="NAME=FILE", type=named_path, action="append", default=[], help="your own; repeatable")
    add("--limit", metavar="N", type=positive, help="the first N images only; shapes draws as many as are asked for")
    add("--fit", action="store_true", help="first train what has no weights at all; shipped nano weights count")
    add("--cost", action="store_true", help="then measure time, memory, parameters and MACs, each method by itself")
    add("--size", metavar="N", type=positive, help="image size; default the smallest native one")
    add("--split", metavar="NAME", help="test (default), val or train")
    add("--seed", metavar="N", type=not_negative, help="of the methods' own noise")
    add("--guidance", metavar="A,B", help="edge, segmentation: show these whole")
    add("--captions", metavar="RULE", help="own (default), recoloured, renamed; of shapes also refilled, deranged")
    add("--samples", metavar="N", type=not_negative, help="draw N of each image besides: mean, oracle best, diversity")
    add("--set", metavar="METHOD.K=V", action="append", default=[], help="a method's option: ecdm.steps=50; repeatable")
    add("--data.root", metavar="DIR", dest="root", help="where the dataset is")
    add("--option", metavar="NAME=VALUE", type=named_path, action="append", default=[], help="such as variant=karpathy")
    add("--data.mask_root", metavar="DIR", dest="mask_root", help="folder: where the masks are")
    add("--data.mask_threshold", metavar="N", dest="mask_threshold", type=positive, help="folder: grey masks, 1 to 255")
    add("--data.mask_invert", dest="mask_invert", action="store_true", default=None, help="folder: black is the hole")
    add("--manifest", metavar="FILE", help="masks made before (zoo masks make)")
    add("--out", metavar="DIR", help="run folder; default runs/PLAN")
    add("--batch-size", metavar="N", type=positive)
    add("--workers", metavar="N", type=not_negative, help="loader processes")
    add("--accelerator", metavar="cpu|gpu|auto")
    add("--devices", metavar="N", type=positive, help="processes; default one a core (CPU, nano), else one")
    add("--precision", metavar="P", help="32-true (default), bf16-mixed, 16-mixed")
    add("--shard", metavar="i/n", type=shard, help="this part of the work; all parts write one folder")
    add("--json", action="store_true", help="the summary for programs, on stdout")
    return parser


def report_parser() -> Parser:
    parser = Parser(
        "zoo report",
        "Write the tables, the strip and the page of a run again, and print the table.\n"
        "With --study or --rank: a user study of the run instead.",
    )
    add = parser.add_argument
    add("run", metavar="RUN", nargs="?", help="the folder that zoo benchmark named; default the newest under runs")
    add("--against", metavar="paper", choices=["paper"], help="with the published numbers beside")
    add("--seconds", action="store_true", help="on the page: quality against the seconds that rows took")
    add("--parquet", action="store_true", help="every row as rows.parquet; needs pyarrow")
    add("--update", metavar="FILE", help="put the table between the marks of a text, such as README.md")
    add("--fail-below", metavar="METRIC=VALUE,...", help="exit 5 where a method is worse; METHOD:METRIC=VALUE for one")
    add("--study", metavar="N", type=positive, help="a page for raters with N images side by side, and its key")
    add("--rank", metavar="ANSWERS", nargs="+", help="what the raters' answer files say")
    add("--json", action="store_true", help="the summary for programs")
    return parser


def inpaint_parser() -> Parser:
    parser = Parser(
        "zoo inpaint",
        "Complete your own images. Results are PNG files of the input's size; known pixels stay exactly as they are.\n"
        "In a mask white is the hole. Folders are paired by file name without extension.",
    )
    add = parser.add_argument
    add("--model", metavar="NAME", action="append", default=[], help="deepfill, telea, ... or package.module.Class")
    add("--image", metavar="FILE|DIR")
    add("--mask", metavar="FILE|DIR", help="a mask, or a folder of them; one file serves all images")
    add("--caption", metavar="TEXT|FILE", help="for methods that read text; captions.jsonl for a folder")
    add("--edge", metavar="FILE|DIR", help="for methods that read edges: white on black, also inside the hole")
    add("--segmentation", metavar="FILE|DIR", help="for methods that read class ids: grey levels or palette indices")
    add("--out", metavar="DIR")
    add("--preset", metavar="NAME", help=f"whose weights, {PRESETS}; default paper where here, else nano")
    add("--weights", metavar="FILE", help="safetensors of your own")
    add("--size", metavar="N", type=positive, help="scale the shorter side to N first; default: the image's own size")
    add("--seed", metavar="N", type=not_negative, default=0, help="of the method's noise")
    add(
        "--samples",
        metavar="N",
        type=positive,
        default=1,
        help="of each image: NAME-1.png to NAME-N.png, seeds from --seed on",
    )
    add("--mask-threshold", metavar="N", type=positive, help="grey masks: levels from this one (1 to 255) are the hole")
    invert = argparse.BooleanOptionalAction
    add("--invert-mask", action=invert, help="black is the hole; --no-invert-mask: white is, beyond doubt")
    add("--accelerator", choices=["cpu", "gpu"], default="cpu")
    return parser


def masks_parser() -> Parser:
    parser = Parser(
        "zoo masks",
        "make    draw the masks of a dataset into a manifest (jsonl.gz): --dataset D --mask KIND --out FILE\n"
        "verify  FILE: every mask decodes, has its ratio and its hash\n"
        "show    a sheet of masked images: --dataset D --mask KIND --out FILE.png (KIND all: every kind, by name)",
    )
    add = parser.add_argument
    add("action", metavar="make|verify|show", nargs="?")
    add("file", metavar="FILE", nargs="?", help="a manifest, for verify")
    add(
        "--dataset",
        "--data",
        dest="data",
        metavar="NAME",
        action="append",
        default=[],
        help="shapes (default), coco, ...: zoo list datasets",
    )
    add("--option", metavar="NAME=VALUE", type=named_path, action="append", default=[], help="such as variant=karpathy")
    add("--mask", metavar="KIND", help="object (default), ...; zoo list masks; for show also all")
    add("--split", metavar="NAME", default="test")
    add("--size", metavar="N", type=positive, default=64)
    add("--seed", metavar="N", type=not_negative, default=0)
    add("--limit", metavar="N", type=positive, help="the first N images; show: 16, or 4 of each kind")
    add("--data.root", metavar="DIR", dest="root")
    add("--out", metavar="FILE")
    return parser


def data_parser() -> Parser:
    parser = Parser(
        "zoo data",
        "info     what a dataset needs, from where, how large, under which licence, and what is here\n"
        "prepare  unpack the archives in its folder; with --download fetch what may be fetched\n"
        "verify   read every sample, count them, and hold every file against its hash in ROOT/.zoo\n"
        "shard    write a split, at --size, as tar files for training from anywhere: --out DIR|URL",
    )
    add = parser.add_argument
    add("action", metavar="prepare|verify|info|shard", nargs="?")
    add("dataset", metavar="D", nargs="?", help="shapes, coco, ...: zoo list datasets")
    add("--data.root", "--root", metavar="DIR", dest="root", help="where its files are; default $ZOO_DATA/D or data/D")
    add("--option", metavar="NAME=VALUE", type=named_path, action="append", default=[], help="such as variant=karpathy")
    add("--download", action="store_true", help="prepare: fetch; goes on where it stopped")
    add("--only", metavar="A,B", help="prepare: only files with A or B in their names")
    add("--again", action="store_true", help="prepare: fetch what is here already, too")
    add("--keep", action="store_true", help="prepare: keep the archives once they are unpacked")
    add("--split", metavar="NAME", default="test", help="verify: test (default), val, train or all")
    add("--partial", action="store_true", help="verify: accept another number of images than the official one")
    add("--reindex", action="store_true", help="verify: make the hashes anew, whatever they were")
    add("--limit", metavar="N", type=positive, help="verify: the first N samples")
    add("--size", metavar="N", type=positive, default=64, help="verify: size to read them at")
    add("--workers", metavar="N", type=not_negative, default=0, help="verify: processes that read")
    add("--out", metavar="DIR|URL", help="shard: where to write; a folder, or s3://..., gs://... (fsspec)")
    add("--samples-per-shard", metavar="N", type=positive, default=1000, help="shard: samples in a file")
    add("--json", action="store_true", help="facts for programs")
    return parser


def weights_parser() -> Parser:
    parser = Parser(
        "zoo weights",
        "list     what is here: shipped, pulled and trained\n"
        "verify   FILE or NAME: its hash, its header, and that it loads\n"
        "convert  FILE: another project's published weights: --model NAME --kind LAYOUT --out FILE\n"
        "pull     URL or FILE into ZOO_HOME/weights: --sha256 HASH",
    )
    add = parser.add_argument
    add("action", metavar="list|pull|convert|verify", nargs="?")
    add("source", metavar="WHAT", nargs="?", help="a file, a name or a URL")
    add("--model", metavar="NAME", help="convert: whose layout")
    add("--kind", metavar="LAYOUT", help="convert: where the file is from")
    add("--preset", metavar="NAME", help=PRESETS)
    add("--out", metavar="FILE")
    add("--sha256", metavar="HASH", help="what the file must hash to")
    add("--json", action="store_true")
    return parser


def list_parser() -> Parser:
    parser = Parser("zoo list", "Print what there is: models, datasets, masks, metrics, suites or protocols.")
    parser.add_argument("what", metavar="models|datasets|masks|metrics|suites|protocols", nargs="?")
    parser.add_argument("--json", action="store_true")
    return parser


def doctor_parser() -> Parser:
    parser = Parser("zoo doctor", "Check the installation: versions, accelerator, shipped weights, disk.")
    parser.add_argument("--json", action="store_true")
    return parser


PARSERS: dict[str, Callable[[], Parser]] = {
    "benchmark": benchmark_parser,
    "report": report_parser,
    "inpaint": inpaint_parser,
    "masks": masks_parser,
    "data": data_parser,
    "weights": weights_parser,
    "list": list_parser,
    "doctor": doctor_parser,
}
