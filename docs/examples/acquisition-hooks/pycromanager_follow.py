"""Micro-Manager by pycro-manager: a job that follows the NDTiff data set from the end of the pre-bleaching on.

follow = FollowAfter(data_starts_at=500, metadata=METADATA)
with Acquisition(directory="D:/data/today", name="cell1", image_saved_fn=follow) as acquisition:
acquisition.acquire(multi_d_acquisition_events(num_time_points=40_000))
"""

from follow_job import post_in_background

METADATA = {  # what NDTiff does not say of your camera: µm, ADU, electrons per ADU, electrons
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100,
    "Camera.ElectronsPerCount": 0.46,
    "Camera.ReadNoise": 1.6,
    "Camera.TrueEMGain": 1,
}


class FollowAfter:
    """Called for each image that was saved; starts the job once."""

    def __init__(self, data_starts_at, metadata=None, analysis=None):
        self.data_starts_at = data_starts_at
        self.metadata = metadata
        self.analysis = analysis
        self.posting = None

    def __call__(self, axes, dataset):
        """`axes` say which image it was; `dataset.path` is the folder it went to."""
        if self.posting is None and axes.get("time", 0) > self.data_starts_at:
            self.posting = post_in_background(dataset.path, self.data_starts_at, self.metadata, self.analysis)
