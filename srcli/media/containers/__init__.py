"""One module a file format: what its header says, is it whole, pixels and metadata in and out.

Pixels here are in OpenCV's channel order (BGR, BGRA); `srcli.media.images` turns them into RGB.
"""
