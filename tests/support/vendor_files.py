"""Files of microscopes, for tests: a writer of each kind that the rule import_images reads as shipped."""

import os
import struct
import uuid
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

# What the files say of themselves.
PIXEL_SIZE = 0.16
SCENES = ("Position 1", "Position 2")


def _names(names, channels):
    return list(names) if names else [f"channel {number}" for number in range(channels)]


def write_czi(path, scenes, names=None, pixel_size=PIXEL_SIZE):
    """Write a CZI by Zeiss' own library; arguments as those of ``write_lif``.

    The library does not write the names of scenes, without which readers know one.
    """
    from pylibCZIrw import czi

    Path(path).unlink(missing_ok=True)
    (stack,) = scenes
    with czi.create_czi(os.fspath(path)) as file:
        for time, z, channel in np.ndindex(stack.shape[:3]):
            plane = {"T": time, "Z": z, "C": channel}
            file.write(np.ascontiguousarray(stack[time, z, channel][..., None]), plane=plane)
        of_number = dict(enumerate(_names(names, stack.shape[2])))
        metres = pixel_size * 1e-6
        file.write_metadata(channel_names=of_number, scale_x=metres, scale_y=metres, scale_z=1e-6)
    return path


def _lif_image(number, stack, names, pixel_size, name):
    times, depth, _, height, width = stack.shape
    size, steps = stack.itemsize, stack.strides
    described = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{8 * size}" NameOfMeasuredQuantity="" Min="0" '
        f'Max="{np.iinfo(stack.dtype).max}" Unit="" LUTName="{escape(of_channel)}" IsLUTInverted="0" '
        f'BytesInc="{steps[2] * at}" BitInc="0"/>'
        for at, of_channel in enumerate(names)
    )
    axes = [(1, width, steps[4], pixel_size, "m"), (2, height, steps[3], pixel_size, "m")]
    axes += [(3, depth, steps[1], 1.0, "m")] if depth > 1 else []
    axes += [(4, times, steps[0], 1.0, "s")] if times > 1 else []
    lengths = "".join(
        f'<DimensionDescription DimID="{axis}" NumberOfElements="{count}" Origin="0" Unit="{unit}" '
        f'Length="{(count - 1) * step * (1e-6 if unit == "m" else 1)!r}" BytesInc="{bytes_apart}" BitInc="0"/>'
        for axis, count, bytes_apart, step, unit in axes
    )
    return (
        f'<Element Name="{escape(name)}" Visibility="1" CopyOption="1" UniqueID="{uuid.UUID(int=number)}">'
        f'<Data><Image TextDescription=""><ImageDescription><Channels>{described}</Channels>'
        f"<Dimensions>{lengths}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{stack.nbytes}" MemoryBlockID="MemBlock_{number}"/><Children/></Element>'
    )


def _lif_block(text):
    data = text.encode("utf-16-le")
    return struct.pack("<BI", 0x2A, len(text)) + data


def write_lif(path, scenes, names=None, pixel_size=PIXEL_SIZE, scene_names=SCENES):
    """Write a LIF of version 2: its XML, and a block of memory per scene.

    scenes: (T, Z, C, H, W) uint8 or uint16 of each
    names: of the channels
    pixel_size: µm
    """
    scenes = [np.ascontiguousarray(stack) for stack in scenes]
    images = "".join(
        _lif_image(number, stack, _names(names, stack.shape[2]), pixel_size, name)
        for number, (stack, name) in enumerate(zip(scenes, scene_names, strict=False))
    )
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="test.lif" Visibility="1" CopyOption="1" '
        f'UniqueID="{uuid.UUID(int=99)}"><Data><Experiment Path="" IsSavedFlag="1"/></Data><Memory Size="0" '
        f'MemoryBlockID="MemBlock_99"/><Children>{images}</Children></Element></LMSDataContainerHeader>'
    )
    with open(path, "wb") as file:
        head = _lif_block(xml)
        file.write(struct.pack("<II", 0x70, len(head)) + head)
        for number, stack in enumerate(scenes):
            head = struct.pack("<BQ", 0x2A, stack.nbytes) + _lif_block(f"MemBlock_{number}")
            file.write(struct.pack("<II", 0x70, len(head)) + head + stack.tobytes())
    return path


def _nd2_xml(tag, value):
    """Return a value as the typed XML of ND2."""
    if isinstance(value, dict):
        return f'<{tag} runtype="CLxListVariant">{"".join(_nd2_xml(*one) for one in value.items())}</{tag}>'
    kind = {bool: "bool", int: "lx_uint32", float: "double", str: "CLxStringW"}[type(value)]
    text = str(value).lower() if isinstance(value, bool) else escape(str(value), {'"': "&quot;"})
    return f'<{tag} runtype="{kind}" value="{text}"/>'


def _nd2_loops(times, depth, scene_names):
    """Return the loops of an experiment, the outermost first: time points, positions, planes along z."""
    loops = []
    if times > 1:
        loops.append((1, {"uiCount": times, "dStart": 0.0, "dPeriod": 1000.0, "dDuration": 1000.0 * times}))
    if len(scene_names) > 1:
        points = {
            f"p{number}": {"dPosX": 0.0, "dPosY": 0.0, "dPosZ": 0.0, "pPosName": name}
            for number, name in enumerate(scene_names)
        }
        loops.append((2, {"uiCount": len(scene_names), "Points": points}))
    if depth > 1:
        loops.append((4, {"uiCount": depth, "dZStep": 1.0, "dZLow": 0.0, "dZHigh": float(depth - 1)}))
    nested = {}
    for kind, settings in reversed(loops):
        nested = {"eType": kind, "uLoopPars": settings, **({"ppNextLevelEx": {"i0": nested}} if nested else {})}
    return nested


def write_nd2(path, scenes, names=None, pixel_size=PIXEL_SIZE, scene_names=SCENES):
    """Write an ND2 of version 3: chunks, and a map of them at the end; arguments as those of ``write_lif``."""
    scene_names = scene_names[: len(scenes)]
    times, depth, channels, height, width = scenes[0].shape
    bits = 8 * scenes[0].itemsize
    planes = {
        f"a{number}": {"sDescription": name, "uiCompCount": 1, "uiColor": 0, "pFluorescentProbe": {"m_sName": name}}
        for number, name in enumerate(_names(names, channels))
    }
    frames = [np.moveaxis(scenes[scene][time, z], 0, -1) for time, scene, z in np.ndindex(times, len(scenes), depth)]
    attributes = {
        **{"uiWidth": width, "uiHeight": height, "uiWidthBytes": width * channels * bits // 8, "uiComp": channels},
        **{"uiBpcInMemory": bits, "uiBpcSignificant": bits, "uiSequenceCount": len(frames), "eCompression": 2},
    }
    picture = {
        **{"bCalibrated": True, "dCalibration": pixel_size, "dTimeAbsolute": 2460000.5},
        "sPicturePlanes": {"uiCount": channels, "uiCompCount": channels, "sPlaneNew": planes},
    }
    chunks = {
        "ImageAttributesLV!": _nd2_xml("SLxImageAttributes", attributes),
        "ImageMetadataSeqLV|0!": _nd2_xml("SLxPictureMetadata", picture),
        "ImageTextInfoLV!": _nd2_xml("SLxImageTextInfo", {"TextInfoItem_9": "1/2/2024  10:00:00 AM"}),
    }
    if loops := _nd2_loops(times, depth, scene_names):
        chunks["ImageMetadataLV!"] = _nd2_xml("SLxExperiment", loops)
    data = {name: f"<variant>{xml}</variant>".encode() for name, xml in chunks.items()}
    data["CustomData|AcqTimesCache!"] = np.arange(len(frames), dtype=np.float64).tobytes()
    data |= {
        f"ImageDataSeq|{number}!": struct.pack("<d", float(number)) + np.ascontiguousarray(frame).tobytes()
        for number, frame in enumerate(frames)
    }
    with open(path, "wb") as file:
        places = {}

        def write_chunk(name, content, reserved):
            places[name] = (file.tell(), len(content))
            file.write(struct.pack("<IIQ", 0x0ABECEDA, reserved, len(content)))
            file.write(name.encode().ljust(reserved, b"\0") + content)

        write_chunk("ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0".ljust(64, b"\0"), 32)
        for name, content in data.items():
            # The pixels start 4096 bytes behind the head of their chunk, after a time of 8 bytes.
            write_chunk(name, content, 4096 - 16 - 8)
        start = file.tell()
        listed = b"".join(name.encode() + struct.pack("<QQ", *places[name]) for name in data)
        signature = b"ND2 CHUNK MAP SIGNATURE 0000001!"
        write_chunk("ND2 FILEMAP SIGNATURE NAME 0001!", listed + signature + struct.pack("<Q", start), 32)
    return path


# By the ending of its files.
WRITERS = {".czi": write_czi, ".lif": write_lif, ".nd2": write_nd2}
