"""Writes samples.tar.gz: small images in every format and form that is read, each with the pixels that Pillow decodes.

    python samples.py    # Pillow 13.0 and numpy

For each NAME there is NAME.rgb: width and height (u32, little-endian) and the pixels of Image.open(NAME).convert("RGB").
16-bit gray differs on purpose: Pillow clips it at 255, so that nearly every pixel is white. There NAME.rgb has the upper
byte, which Pillow takes of 16-bit color.
"""

import gzip
import io
import struct
import tarfile
import zlib

import numpy
from PIL import Image

random = numpy.random.RandomState(3)
WIDTH, HEIGHT = 11, 7
files = {}


def add(name, image, **options):
    out = io.BytesIO()
    image.save(out, {"tif": "TIFF", "jpg": "JPEG", "pgm": "PPM", "pbm": "PPM"}.get(name[-3:], name.split(".")[1]), **options)
    files[name] = out.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, color, rows):
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png16(color, channels):
    samples = random.randint(0, 65536, (3, 4, channels)).astype(">u2")
    return png(4, 3, 16, color, b"".join(b"\0" + row.tobytes() for row in samples))


def bmp(bits, compression, data, size=(4, 4), masks=b"", palette=b""):
    start = 14 + 40 + len(masks) + len(palette)
    head = (40, *size, 1, bits, compression, len(data), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + struct.pack("<IiiHHIIiiII", *head) + masks + palette + data


PALETTE = bytes([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])


def gif(screen, left, top, size, indices, transparent=None, local=None):
    out = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x81, 1, 0) + PALETTE
    if transparent is not None:
        out += b"\x21\xf9\x04\x01" + struct.pack("<H", 0) + bytes([transparent, 0])
    out += b"," + struct.pack("<HHHHB", left, top, *size, 0x81 if local else 0) + (local or b"")
    codes = [128, *indices, 129]  # 8 bits each: the table stays small
    return out + bytes([7, len(codes), *codes]) + b"\0;"


def tiff(channels, samples, photometric, bits, extra=()):
    height, width = samples.shape[:2]
    data = samples.tobytes()
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, bits), (259, 3, 1, 1), (262, 3, 1, photometric)]
    tags += [(273, 4, 1, None), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(data)), *extra]
    base = 8 + 2 + 12 * len(tags) + 4
    depths = struct.pack(f"<{channels}H", *[bits] * channels) if channels > 2 else b""
    out = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for tag, kind, count, value in tags:
        if tag == 258 and channels == 2:
            out += struct.pack("<HHIHH", tag, kind, count, bits, bits)
            continue
        value = base if tag == 258 and channels > 2 else base + len(depths) if tag == 273 else value
        out += struct.pack("<HHII", tag, kind, count, value)
    return out + struct.pack("<I", 0) + depths + data


noise = random.randint(0, 256, (HEIGHT, WIDTH, 3)).astype("uint8")
alpha = random.choice([0, 255, 128], (HEIGHT, WIDTH, 1)).astype("uint8")
rgb, rgba = Image.fromarray(noise), Image.fromarray(numpy.concatenate([noise, alpha], -1))
gray, few, many, one = rgb.convert("L"), rgb.quantize(16), rgb.quantize(200), rgb.convert("1")
gray16 = Image.fromarray(random.randint(0, 65536, (HEIGHT, WIDTH)).astype("uint16"))
inverse = Image.fromarray(255 - noise)
ramp = numpy.stack(numpy.meshgrid(numpy.arange(19) * 13, numpy.arange(17) * 15), -1)
ramp = Image.fromarray(numpy.concatenate([ramp, numpy.full((17, 19, 1), 99)], -1).astype("uint8"))

for name, image in [("rgb", rgb), ("rgba", rgba), ("grey", gray), ("la", rgba.convert("LA")), ("grey16", gray16), ("one", one), ("few", few)]:
    add(f"{name}.png", image)
add("few_transparent.png", few, transparency=3)
add("few_alphas.png", few, transparency=bytes([0, 128, 255]))
add("rgb_transparent.png", rgb, transparency=tuple(noise[0, 0].tolist()))
add("grey_transparent.png", gray, transparency=7)
for name, color, channels in [("rgb16", 2, 3), ("rgba16", 6, 4), ("la16", 4, 2)]:
    files[f"{name}.png"] = png16(color, channels)
files["grey2.png"] = png(4, 1, 2, 0, b"\0\x1b")
for name, image in [("rgb", rgb), ("grey", gray), ("one", one), ("few", few), ("rgba", rgba)]:
    add(f"{name}.bmp", image)
files["top_down.bmp"] = bmp(24, 0, random.bytes(48), (4, -4))
files["unused_byte.bmp"] = bmp(32, 0, random.bytes(64))
files["run_length.bmp"] = bmp(
    8, 1, bytes([4, 1, 0, 0, 2, 0, 2, 2, 0, 0, 0, 4, 0, 1, 2, 1, 0, 0, 4, 2, 0, 0, 0, 1]),
    palette=bytes([1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0]),
)
files["five_bits.bmp"] = bmp(16, 0, random.randint(0, 32768, 16).astype("<u2").tobytes())
for name, image in [("rgb.ppm", rgb), ("grey.pgm", gray), ("one.pbm", one), ("grey16.pgm", gray16)]:
    add(name, image)
files["plain.ppm"] = b"P3\n# comment\n2 2\n255\n255 0 0 0 255 0\n0 0 255 10 20 30\n"
files["plain.pgm"] = b"P2\n3 2\n15\n0 3 15 7 8 9\n"
files["plain.pbm"] = b"P1\n3 2\n1 0 1\n0 1 1\n"
files["hundred.ppm"] = b"P6\n2 2\n100\n" + bytes([0, 1, 50, 99, 100, 33, 7, 8, 9, 10, 11, 12])
for compression in [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"]:
    options = {"compression": compression} if compression else {}
    name = (compression or "plain").removeprefix("tiff_")
    add(f"rgb_{name}.tif", rgb, **options)
    add(f"few_{name}.tif", few, **options)
add("rgba.tif", rgba)
add("grey.tif", gray)
add("grey16.tif", gray16)
add("one.tif", one)
add("fax.tif", one, compression="group4")
add("cmyk.tif", rgb.convert("CMYK"))
two = numpy.array([[0b10100000], [0b01100000]], "u1")
colors = numpy.array([0x1234, 0xFF00, 0x8080, 0x0100, 0xABCD, 0x00FF], "<u2").tobytes()
whole = tiff(1, two, 3, 1, [(320, 3, 6, 0)])
files["two_colours.tif"] = whole.replace(struct.pack("<HHII", 256, 3, 1, 1), struct.pack("<HHII", 256, 3, 1, 3)).replace(
    struct.pack("<HHII", 320, 3, 6, 0), struct.pack("<HHII", 320, 3, 6, len(whole))) + colors
files["rgb16.tif"] = tiff(3, random.randint(0, 65536, (3, 4, 3)).astype("<u2"), 2, 16)
for name, image, options in [("few", few, {}), ("few_transparent", few, {"transparency": 3}), ("grey", gray, {}), ("interlaced", many, {"interlace": 1})]:
    add(f"{name}.gif", image, **options)
add("animated.gif", few, save_all=True, append_images=[inverse.quantize(16)], loop=0)
files["within_screen_transparent.gif"] = gif((6, 5), 1, 2, (3, 2), [0, 1, 2, 3, 2, 1], transparent=2)
files["within_screen.gif"] = gif((6, 5), 1, 2, (3, 2), [0, 1, 2, 3, 2, 1])
files["beyond_screen.gif"] = gif((3, 3), 2, 2, (3, 2), [0, 1, 2, 3, 2, 1])
files["beyond_palette.gif"] = gif((3, 2), 0, 0, (3, 2), [0, 1, 2, 100, 2, 1])
files["own_palette.gif"] = gif((3, 2), 0, 0, (3, 2), [0, 1, 2, 3, 2, 1], local=PALETTE[::-1])
add("lossless.webp", rgb, lossless=True)
add("lossless_alpha.webp", rgba, lossless=True)
add("lossless_exact.webp", rgba, lossless=True, exact=True)
add("animated.webp", rgb, save_all=True, append_images=[inverse], lossless=True)
add("lossy.webp", ramp, quality=90)
for name, image in [("rgb", ramp), ("grey", ramp.convert("L")), ("cmyk", ramp.convert("CMYK"))]:
    for kind, options in [("baseline", {}), ("progressive", {"progressive": True}), ("restarts", {"restart_marker_blocks": 1})]:
        add(f"{name}_{kind}.jpg", image, quality=90, **options)
exif = Image.Exif()
exif[0x0112] = 6  # turn it by 90 degrees
add("turned.jpg", ramp, quality=90, exif=exif)

packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
    for name, data in sorted(files.items()):
        image = Image.open(io.BytesIO(data))
        if image.mode in ("I;16", "I"):
            pixels = numpy.repeat((numpy.asarray(image).astype("uint32") >> 8).astype("uint8")[..., None], 3, -1).tobytes()
        else:
            pixels = image.convert("RGB").tobytes()
        for entry, content in [(name, data), (f"{name}.rgb", struct.pack("<II", *image.size) + pixels)]:
            info = tarfile.TarInfo(entry)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
with open("samples.tar.gz", "wb") as out:
    out.write(gzip.compress(packed.getvalue(), 9, mtime=0))
