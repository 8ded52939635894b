"""XMP packets as cameras and editors write them."""

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"

LIGHTROOM = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 7.0-c000 1.000000">\n'
    f' <rdf:RDF xmlns:rdf="{RDF}">\n'
    '  <rdf:Description rdf:about=""\n'
    '    xmlns:xmp="http://ns.adobe.com/xap/1.0/"\n'
    '    xmlns:dc="http://purl.org/dc/elements/1.1/"\n'
    '    xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"\n'
    '   xmp:CreatorTool="Adobe Photoshop Lightroom Classic 13.0 (Windows)"\n'
    '   crs:Exposure2012="+0.35" crs:ToneCurveName2012="a &gt; b > c">\n'
    "   <dc:subject>\n    <rdf:Bag>\n     <rdf:li>Kirschblüte</rdf:li>\n     <rdf:li>春</rdf:li>\n"
    "    </rdf:Bag>\n   </dc:subject>\n"
    "  </rdf:Description>\n </rdf:RDF>\n</x:xmpmeta>\n" + (" " * 100 + "\n") * 20 + '<?xpacket end="w"?>'
).encode()

GIMP = (
    "<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>\n"
    "<x:xmpmeta xmlns:x='adobe:ns:meta/' x:xmptk='XMP Core 4.4.0-Exiv2'>\n"
    f"<r:RDF xmlns:r='{RDF}'>\n"
    "<!-- not the end: </r:RDF> -->"
    "<r:Description r:about='uuid:ä-1' xmlns:GIMP='http://www.gimp.org/xmp/' GIMP:API='2.0'>"
    "<GIMP:Note><![CDATA[</r:RDF> & more]]></GIMP:Note>"
    "</r:Description>\n"
    "<r:Description r:about='uuid:ä-1' xmlns:xmpMM='http://ns.adobe.com/xap/1.0/mm/'><xmpMM:History><r:Seq/>"
    "</xmpMM:History></r:Description>\n"
    "</r:RDF >\n</x:xmpmeta>\n<?xpacket end='w'?>"
).encode()

DARKTABLE = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 5.6.0">\n'
    f' <rdf:RDF xmlns:rdf="{RDF}">\n'
    '  <rdf:Description rdf:about="" xmlns:darktable="http://darktable.sf.net/"'
    ' darktable:import_timestamp="-1"/>\n'
    " </rdf:RDF>\n</x:xmpmeta>\n"
).encode()

BARE = f"<rdf:RDF xmlns:rdf='{RDF}' />".encode()
"""No property and no wrapper."""

LATIN = (
    '<?xml version="1.0" encoding="ISO-8859-1"?>'
    f'<rdf:RDF xmlns:rdf="{RDF}"><rdf:Description xmlns:a="urn:a/" a:b="Blüte" rdf:about=""/></rdf:RDF>'
).encode("latin-1")

ALL = {"lightroom": LIGHTROOM, "gimp": GIMP, "darktable": DARKTABLE, "bare": BARE, "latin-1": LATIN}

REFUSED = {
    "no XML": b"x" * 100,
    "cut off": LIGHTROOM[:500],
    "end tag missing": DARKTABLE.replace(b"</rdf:RDF>", b""),
    "prefix not declared": DARKTABLE.replace(b'xmlns:darktable="http://darktable.sf.net/" ', b""),
    "no rdf:RDF": b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>',
    "document type": b'<!DOCTYPE a [<!ENTITY b "c">]>' + BARE,
    "encoding unknown": b'<?xml version="1.0" encoding="klingon"?>' + BARE,
    "odd UTF-16": LIGHTROOM.decode().encode("utf-16")[:-1],
}
