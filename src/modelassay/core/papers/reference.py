"""One paper, and its BibTeX entry."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """One source."""

    key: str
    authors: str
    """Surname, Given and Surname, Given: BibTeX order."""
    title: str
    year: int
    url: str
    kind: str = "misc"
    """BibTeX entry type."""

    @property
    def bibtex(self) -> str:
        """The BibTeX entry."""
        return (
            f"@{self.kind}{{{self.key},\n  author = {{{self.authors}}},\n"
            f"  title = {{{{{self.title}}}}},\n  year = {{{self.year}}},\n"
            f"  url = {{{self.url}}}\n}}"
        )


def arxiv(
    key: str, authors: str, title: str, identifier: str, *, year: int | None = None
) -> Reference:
    """A preprint, of the year of its identifier unless it was published in another."""
    year = 2000 + int(identifier[:2]) if year is None else year
    return Reference(
        key=key, authors=authors, title=title, year=year, url=f"https://arxiv.org/abs/{identifier}"
    )


def distill(key: str, authors: str, title: str, number: str, year: int) -> Reference:
    """An article in Distill, by the last part of its DOI."""
    url = f"https://doi.org/10.23915/distill.{number}"
    return Reference(key=key, authors=authors, title=title, year=year, url=url, kind="article")
