"""Bytes to pixels and back: picture files, scratch arrays, and files that appear whole or not at all.

One module a file format. OpenCV decodes and encodes the pixels; beyond a memory limit, into and from scratch
files, with a few megabytes of its own for PNG, JPEG, TIFF and BMP. tifffile writes BigTIFF. The rest is done
here, because OpenCV 5.0 reads and writes no metadata in TIFF, loses XMP in JPEG and ICC and XMP when it reads
AVIF, adds a byte to XMP in PNG, turns some TIFFs by their orientation and others not, drops the alpha of gray
TIFFs and of transparent gray in PNG, writes no gray + alpha at all, and garbles 16-bit TIFFs in planes.

Pixels inside the format modules are in OpenCV's channel order (BGR, BGRA); `srcli.io.pictures` reads RGB and
writes either.
"""
