"""XMP packets (ISO 16684-1): properties are read, added or changed, and every other byte stays as it is."""

import html
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from xml.parsers.expat import ExpatError, ParserCreate

_RDF_NAMESPACE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_RDF, _DESCRIPTION, _ABOUT = (f"{_RDF_NAMESPACE} {name}" for name in ("RDF", "Description", "about"))

EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF_NAMESPACE}"></rdf:RDF></x:xmpmeta>\n'
    '<?xpacket end="w"?>'
).encode()
"""A packet without properties."""

_WIDE = (
    (BOM_UTF32_LE, "utf-32-le"), (BOM_UTF32_BE, "utf-32-be"), (BOM_UTF16_LE, "utf-16-le"),
    (BOM_UTF16_BE, "utf-16-be"), (b"<\0\0\0", "utf-32-le"), (b"\0\0\0<", "utf-32-be"),
    (b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"),
)  # fmt: skip
"""First bytes of packets in UTF-16 and UTF-32; the mark of UTF-32-LE begins with that of UTF-16-LE."""
_ENCODING = re.compile(r"^(<\?xml[^>]*?)\s+encoding\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_NAME = re.compile(rb"<([^\s/>]+)")
_ATTRIBUTE = re.compile(rb"\s+([^\s=]+)\s*=\s*(?:\"[^\"]*\"|'[^']*')")


class DamagedError(ValueError):
    """No packet that XMP readers take: not well-formed, with a document type, or without rdf:RDF."""


@dataclass(frozen=True, slots=True)
class Property:
    """The name of a text property: its namespace (ends with "/" or "#"), the usual prefix, the local name."""

    namespace: str
    prefix: str
    local: str

    @property
    def name(self) -> str:
        """As the parser gives it."""
        return f"{self.namespace} {self.local}"


@dataclass(slots=True)
class _Element:
    """An XML element and its place. Names are "namespace name", or the name alone; positions are in bytes.

    Attributes:
        start, end: of the whole element.
        inner_end: of its content; of the "/>" in an empty element.
        texts: its own text, in pieces.
    """

    name: str
    attributes: dict[str, str]
    start: int
    inner_end: int = 0
    end: int = 0
    texts: list[str] = field(default_factory=list)
    children: "list[_Element]" = field(default_factory=list)


def value(packet: bytes, wanted: Property) -> str | None:
    """The text of a property; None where the packet has none. Of several the last.

    Raises:
        DamagedError: the packet cannot be read.
    """
    rdf = _rdf(_utf8(packet))
    texts = [
        "".join(place.texts) if place else description.attributes[wanted.name]
        for description, place in _places(rdf, wanted)
    ]
    return texts[-1] if texts else None


def with_value(packet: bytes, wanted: Property, text: str) -> bytes:
    """A packet with the property at the end of its rdf:RDF.

    An older value goes; else every byte is kept, but for NUL bytes after the packet. UTF-16 and UTF-32
    become UTF-8.

    Args:
        packet: in any encoding of XML.
        wanted: the property's name.
        text: its value; ASCII, as the packet may be in any encoding that contains it.

    Raises:
        DamagedError: the packet cannot be read.
    """
    data = _utf8(packet)
    rdf = _rdf(data)
    about = next((part.attributes.get(_ABOUT, "") for part in rdf.children if part.name == _DESCRIPTION), "")
    description = _description(about, wanted, text)
    return b"".join((*_kept(data, rdf, wanted), *_closed(data, rdf, description)))


def without_value(packet: bytes, wanted: Property) -> bytes:
    """A packet without the property; one that has none stays byte for byte as it is, whatever its encoding.

    Raises:
        DamagedError: the packet cannot be read.
    """
    data = _utf8(packet)
    rdf = _rdf(data)
    if not any(_places(rdf, wanted)):
        return packet
    return b"".join((*_kept(data, rdf, wanted), data[rdf.inner_end :]))


def edited(packet: bytes, edit: Callable[[str, str], str | None]) -> bytes:
    """A packet with properties changed; one in which none is stays byte for byte as it is.

    Args:
        packet: in any encoding of XML.
        edit: is given the name of each property, "namespace local", and its text (of a structure: the white
            space in it); gives the text to stand there, or None where the property is to go.

    Raises:
        DamagedError: the packet cannot be read.
    """
    data = _utf8(packet)
    changes: list[tuple[int, int, bytes]] = []
    for description in (part for part in _rdf(data).children if part.name == _DESCRIPTION):
        for index, (name, old) in enumerate(description.attributes.items()):
            new = edit(name, old)
            if new != old:
                start, end = _attribute(data, description, index)
                key = data[start:end].partition(b"=")[0]
                changes.append((start, end, b"" if new is None else key + b'="' + _escaped(new) + b'"'))
        for element in description.children:
            old = "".join(element.texts)
            new = edit(element.name, old)
            if new is None:
                changes.append((element.start, element.end, b""))
            elif new != old and not element.children:
                start = _content(data, element)
                changes.append((start, element.inner_end, _escaped(new)))
    if not changes:
        return packet
    parts, position = list[bytes](), 0
    for start, end, text in sorted(changes):
        parts += [data[position:start], text]
        position = end
    return b"".join((*parts, data[position:]))


def _escaped(text: str) -> bytes:
    return html.escape(text).encode("ascii", "xmlcharrefreplace")


def _content(data: bytes, element: _Element) -> int:
    """Where the content of an element begins."""
    name = _NAME.match(data, element.start)
    position = name.end() if name else element.start
    while attribute := _ATTRIBUTE.match(data, position):
        position = attribute.end()
    return data.index(b">", position) + 1


def without_padding(packet: bytes) -> bytes:
    """A packet in UTF-8 without the white space that its writer left for later changes."""
    at = packet.rfind(b"<?xpacket")
    return packet[:at].rstrip() + b"\n" + packet[at:] if at > packet.rfind(b"</") else packet


def _description(about: str, wanted: Property, text: str) -> bytes:
    """The property in a description that declares all it needs, in ASCII."""
    blanks = str.maketrans({blank: f"&#{ord(blank)};" for blank in "\t\n\r"})
    subject = html.escape(about).translate(blanks).encode("ascii", "xmlcharrefreplace").decode()
    name = f"{wanted.prefix}:{wanted.local}"
    return (
        f'<rdf:Description xmlns:rdf="{_RDF_NAMESPACE}" xmlns:{wanted.prefix}="{wanted.namespace}"'
        f' rdf:about="{subject}"><{name}>{html.escape(text, quote=False)}</{name}></rdf:Description>'
    ).encode("ascii")


def _kept(data: bytes, rdf: _Element, wanted: Property) -> Iterator[bytes]:
    """The packet up to the end of rdf:RDF's content, without the property."""
    position = 0
    for start, end in dict.fromkeys(_old(data, rdf, wanted)):
        yield data[position:start]
        position = end
    yield data[position : rdf.inner_end]


def _closed(data: bytes, rdf: _Element, description: bytes) -> Iterator[bytes]:
    """The description and all that follows; an empty rdf:RDF is given an end tag."""
    if data[rdf.inner_end : rdf.end] == b"/>":
        name = _NAME.match(data, rdf.start)
        yield from (b">", description, b"</", name[1] if name else b"", b">", data[rdf.end :])
    else:
        yield from (description, data[rdf.inner_end :])


def _places(rdf: _Element, wanted: Property) -> Iterator[tuple[_Element, _Element | None]]:
    """(description, element) wherever the property stands; no element where it is an attribute."""
    for description in rdf.children:
        if description.name == _DESCRIPTION:
            if wanted.name in description.attributes:
                yield description, None
            yield from ((description, part) for part in description.children if part.name == wanted.name)


def _old(data: bytes, rdf: _Element, wanted: Property) -> Iterator[tuple[int, int]]:
    """(start, end) of what to cut out to be rid of the property: descriptions with nothing else go whole."""
    for description, element in _places(rdf, wanted):
        others = set(description.attributes) - {_ABOUT, wanted.name}
        if not others and all(part.name == wanted.name for part in description.children):
            yield description.start, description.end
        elif element is not None:
            yield element.start, element.end
        else:
            yield _attribute(data, description, list(description.attributes).index(wanted.name))


def _attribute(data: bytes, element: _Element, index: int) -> tuple[int, int]:
    """(start, end) of one of a start tag's attributes, with the space before it; xmlns does not count."""
    name = _NAME.match(data, element.start)
    position, found = name.end() if name else element.start, list[re.Match[bytes]]()
    while attribute := _ATTRIBUTE.match(data, position):
        position = attribute.end()
        if attribute[1].partition(b":")[0] != b"xmlns":
            found.append(attribute)
    return found[index].span()


def _rdf(data: bytes) -> _Element:
    """The rdf:RDF element: the root of a packet, or in the root."""
    (root,) = _parsed(data).children
    for element in (root, *root.children):
        if element.name == _RDF:
            return element
    raise DamagedError("it holds no rdf:RDF")


def _parsed(data: bytes) -> _Element:
    """The elements of XML in an encoding that contains ASCII, below a nameless one.

    A document type is refused: its entities could grow without bound.
    """
    parser, open_ones = ParserCreate(namespace_separator=" "), [_Element("", {}, 0)]

    def start(name: str, attributes: dict[str, str]) -> None:
        element = _Element(name, attributes, parser.CurrentByteIndex)
        open_ones[-1].children.append(element)
        open_ones.append(element)

    def text(more: str) -> None:
        open_ones[-1].texts.append(more)

    def end(_: str) -> None:
        element, at = open_ones.pop(), parser.CurrentByteIndex
        empty = not element.children and not element.texts and data[at - 2 : at] == b"/>"
        element.inner_end, element.end = (at - 2, at) if empty else (at, data.index(b">", at) + 1)

    def refuse(*_: object) -> None:
        raise DamagedError("it has a document type")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, refuse
    try:
        parser.Parse(data, True)
    except (ExpatError, LookupError) as error:  # LookupError: an encoding that Python does not know
        raise DamagedError(f"it is not well-formed: {error}") from error
    except ValueError as error:
        raise DamagedError(str(error)) from error
    return open_ones[0]


def _utf8(packet: bytes) -> bytes:
    """A packet without NUL bytes after it; UTF-16 and UTF-32 as UTF-8."""
    codec = next((codec for start, codec in _WIDE if packet.startswith(start)), None)
    if codec is None:
        return packet.rstrip(b"\0")
    try:
        text = packet.decode(codec)
    except UnicodeDecodeError as error:
        raise DamagedError(f"it is not {codec}") from error
    return _ENCODING.sub(r"\1", text.removeprefix("\ufeff").rstrip("\0")).encode()
