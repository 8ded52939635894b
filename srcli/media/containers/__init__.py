"""One module a file format: what its header says, is it whole, pixels and metadata in and out.

OpenCV codes the pixels. The rest is done here, because OpenCV 5.0 reads and writes no metadata in TIFF,
loses XMP in JPEG and ICC and XMP when it reads AVIF, adds a byte to XMP in PNG, turns some TIFFs by their
orientation and others not, drops the alpha of gray TIFFs and of transparent gray in PNG, writes no
gray + alpha at all, and garbles 16-bit TIFFs in planes.

Pixels here are in OpenCV's channel order (BGR, BGRA); `srcli.media.images` turns them into RGB.
"""
