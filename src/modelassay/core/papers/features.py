"""What features are, how they are laid out, and how methods that find them are tested."""

from modelassay.core.papers.reference import Reference, arxiv

FEATURES = (
    Reference(
        key="chughtai2025",
        authors="Chughtai, Bilal and Bushnaq, Lucius",
        title="Activation space interpretability may be doomed",
        year=2025,
        url="https://www.alignmentforum.org/posts/gYfpPbww3wQRaxAFD",
    ),
    arxiv(
        "bushnaq2024",
        "Bushnaq, Lucius and Heimersheim, Stefan and Goldowsky-Dill, Nicholas and others",
        "The local interaction basis: identifying computationally-relevant "
        "and sparsely interacting features in neural networks",
        "2405.10928",
    ),
    arxiv(
        "hanni2024",
        "Hänni, Kaarel and Mendel, Jake and Vaintrob, Dmitry and Chan, Lawrence",
        "Mathematical models of computation in superposition",
        "2408.05451",
    ),
    arxiv(
        "lampinen2025",
        "Lampinen, Andrew Kyle and others",
        "Representation biases: will we achieve complete understanding by analyzing "
        "representations?",
        "2507.22216",
    ),
    arxiv(
        "ayonrinde2024",
        "Ayonrinde, Kola and Pearce, Michael T. and Sharkey, Lee",
        "Interpretability as compression: reconsidering SAE explanations of neural activations "
        "with MDL-SAEs",
        "2410.11179",
    ),
    Reference(
        key="anders2024",
        authors="Anders, Evan and others",
        title="Sparse autoencoders find composed features in small toy models",
        year=2024,
        url="https://www.lesswrong.com/posts/a5wwqza2cY3W7L9cj",
    ),
    arxiv(
        "chanin2026",
        "Chanin, David and Garriga-Alonso, Adrià",
        "SynthSAEBench: evaluating sparse autoencoders on scalable realistic synthetic data",
        "2602.14687",
    ),
    arxiv(
        "korznikov2026",
        "Korznikov, Anton and others",
        "Sanity checks for sparse autoencoders",
        "2602.14111",
    ),
    arxiv(
        "heap2025",
        "Heap, Thomas and others",
        "Automated interpretability metrics do not distinguish trained and random transformers",
        "2501.17727",
    ),
    arxiv(
        "lee2024",
        "Lee, Daniel J. and Heimersheim, Stefan",
        "Investigating sensitive directions in GPT-2: an improved baseline "
        "and comparative analysis of SAEs",
        "2410.12555",
    ),
    arxiv(
        "paulo2025",
        "Paulo, Gonçalo and Belrose, Nora",
        "Sparse autoencoders trained on the same data learn different features",
        "2501.16615",
    ),
    arxiv(
        "karvonen2025",
        "Karvonen, Adam and others",
        "SAEBench: a comprehensive benchmark for sparse autoencoders "
        "in language model interpretability",
        "2503.09532",
    ),
    arxiv(
        "nanda2023",
        "Nanda, Neel and others",
        "Progress measures for grokking via mechanistic interpretability",
        "2301.05217",
    ),
    Reference(
        key="elhage2022",
        authors="Elhage, Nelson and others",
        title="Toy models of superposition",
        year=2022,
        url="https://transformer-circuits.pub/2022/toy_model",
    ),
    arxiv(
        "engels2024",
        "Engels, Joshua and Michaud, Eric J. and Liao, Isaac and Gurnee, Wes and Tegmark, Max",
        "Not all language model features are one-dimensionally linear",
        "2405.14860",
    ),
    arxiv(
        "giglemiani2024",
        "Giglemiani, Giorgi and others",
        "Evaluating synthetic activations composed of SAE latents in GPT-2",
        "2409.15019",
    ),
    arxiv(
        "prieto2026",
        "Prieto, Lucas and others",
        "From data statistics to feature geometry: how correlations shape superposition",
        "2603.09972",
    ),
)
