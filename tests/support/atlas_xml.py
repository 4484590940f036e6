"""XML in the form of the Human Protein Atlas's, as small or as large as a test needs."""

import csv
import gzip
from collections import defaultdict
from xml.sax.saxutils import escape, quoteattr

from hpaloc.classes import NAMES

SITE = "https://images.proteinatlas.org"


def data_of(cell_line, locations, images, level="", extra=""):
    """Return the XML of one cell line: its locations, and its images by their addresses."""
    places = "".join(f"<location>{escape(name)}</location>" for name in locations)
    intensity = f'<level type="intensity">{level}</level>' if level else ""
    shown = "".join(f'<image imageType="sampleImage"><imageUrl>{escape(url)}</imageUrl></image>' for url in images)
    line = f'<cellLine organ="Brain">{escape(cell_line)}</cellLine>'
    return f"<data>{line}{intensity}{places}{extra}<assayImage>{shown}</assayImage></data>"


def antibody(id, *data, reliability="supported", assay='type="human" subtype="human cell lines"'):
    """Return the XML of an antibody with one sub-assay."""
    verification = f'<verification type="validation">{reliability}</verification>' if reliability else ""
    return (
        f"<antibody id={quoteattr(id)}><antigenSequence>MK</antigenSequence>"
        f'<cellExpression source="HPA" technology="ICC/IF"><summary>-</summary>{verification}'
        f"<subAssay {assay}>{''.join(data)}</subAssay></cellExpression></antibody>"
    )


def entry(gene, *antibodies, version="23.0", id=None, bulk=""):
    """Return the XML of a gene; ``bulk`` stands for all that is not immunofluorescence."""
    return (
        f'<entry version="{version}"><name>{escape(gene)}</name><identifier id="{id or "ENSG" + gene}" db="Ensembl"/>'
        f"{bulk}{''.join(antibodies)}</entry>"
    )


def whole(*entries):
    """Return the XML of an atlas with these genes."""
    start = '<?xml version="1.0" encoding="UTF-8"?><proteinAtlas schemaVersion="3.0">'
    return f"{start}{''.join(entries)}</proteinAtlas>"


def address(number, image, colours="blue_red_green", site=SITE):
    """Return the address of an image of an antibody's number, such as 7 of HPA000007."""
    return f"{site}/{number}/{image}_{colours}.jpg"


# What is not immunofluorescence: far more than the rest, as in the atlas.
_BULK = (
    '<rnaExpression source="HPA" technology="RNAseq" assayType="tissue">'
    + "".join(
        f'<data><tissue organ="Brain">tissue {at}</tissue><level type="normalizedRNAExpression" unitRNA="nTPM" '
        f'expRNA="{at}.1">{at}</level><RNASample sampleId="{at}" expRNA="{at}.3"/></data>'
        for at in range(60)
    )
    + "</rnaExpression>"
)


def write_atlas(path, table, genes=20_000, bulk=1):
    """Write the XML of a whole atlas, gzip'd, from a list of public images; return how many genes and images it has.

    table: a CSV with the columns ID, Label2021, LabelFromV18, Cellline, antibody, antibody_number and gene
    bulk: how often each gene has the ten kilobytes that are not needed
    """
    of_gene = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    images = 0
    with open(table, newline="") as file:
        for at, row in enumerate(csv.DictReader(file)):
            labels = row["Label2021"] or row["LabelFromV18"]
            number = row["antibody_number"] or str(900_000 + at)
            id = row["antibody"] or f"HPA{int(number):06d}"
            key = (row["Cellline"] or "U-2 OS", labels)
            of_gene[row["gene"] or f"of {id}"][id, number][key].append(row["ID"])
            images += 1
    names = [*of_gene, *(f"without-{at}" for at in range(max(0, genes - len(of_gene))))]
    with gzip.open(path, "wt", compresslevel=1, encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n<proteinAtlas schemaVersion="3.0">\n')
        for at, gene in enumerate(names):
            antibodies = []
            for (id, number), lines in of_gene.get(gene, {}).items():
                data = []
                for (line, labels), ids in lines.items():
                    chosen = [int(label) for label in labels.split("|") if label]
                    negative = chosen == [18]
                    locations = [] if negative else [NAMES[label].lower() for label in chosen if label != 18]
                    urls = [address(number, image) for image in ids]
                    data.append(data_of(line, locations, urls, level="negative" if negative else "moderate"))
                antibodies.append(antibody(id, *data))
            file.write(entry(gene, *antibodies, id=f"ENSG{at:011d}", bulk=_BULK * bulk) + "\n")
        file.write("</proteinAtlas>\n")
    return len(names), images
