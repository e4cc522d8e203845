"""Lenses and attention heads: what a language model's layers and heads say by themselves."""

from modelassay.core.papers.reference import Reference, arxiv

LENSES = (
    Reference(
        key="nostalgebraist2020",
        authors="nostalgebraist",
        title="interpreting GPT: the logit lens",
        year=2020,
        url="https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru",
    ),
    arxiv(
        "belrose2023",
        "Belrose, Nora and Furman, Zach and Smith, Logan and others",
        "Eliciting latent predictions from transformers with the tuned lens",
        "2303.08112",
    ),
    Reference(
        key="elhage2021",
        authors="Elhage, Nelson and Nanda, Neel and Olsson, Catherine and others",
        title="A mathematical framework for transformer circuits",
        year=2021,
        url="https://transformer-circuits.pub/2021/framework",
    ),
    arxiv(
        "olsson2022",
        "Olsson, Catherine and Elhage, Nelson and Nanda, Neel and others",
        "In-context learning and induction heads",
        "2209.11895",
    ),
)
