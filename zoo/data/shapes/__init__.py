"""`shapes`, the built-in dataset: procedural scenes drawn on demand, with boxes, segmentation, captions and a judge.

| file          | what                                                                                  |
|---------------|---------------------------------------------------------------------------------------|
| `scene.py`    | the law of a scene: what is where, in coordinates that know no image size              |
| `geometry.py` | the eight outlines, and their exact antialiased coverage of pixels at any place and size |
| `texture.py`  | the five kinds of background                                                           |
| `draw.py`     | a scene to pixels: image, supports of the objects, segmentation                        |
| `captions.py` | six sentences per scene, each naming every object                                      |
| `edits.py`    | captions that say something else than the picture                                      |
| `judge.py`    | caption fidelity: the colour and the shape of what was painted in the hole             |
| `colour.py`   | the palette, and sRGB to CIE Lab and back                                              |
| `dataset.py`  | all of it under the contract of `zoo.data.base.Dataset`                                |
"""

from __future__ import annotations

from zoo.data.shapes.dataset import Shapes
from zoo.data.shapes.judge import Verdict, judge_scene
from zoo.data.shapes.scene import Background, Scene, SceneObject, draw_scene

__all__ = ["Background", "Scene", "SceneObject", "Shapes", "Verdict", "draw_scene", "judge_scene"]
