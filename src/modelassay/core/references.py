"""The papers that methods come from; `modelassay cite` prints those that a run used."""

from collections.abc import Iterable
from dataclasses import dataclass

from modelassay.core.errors import UnknownNameError


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


def _arxiv(key: str, authors: str, title: str, identifier: str) -> Reference:
    year = 2000 + int(identifier[:2])
    return Reference(
        key=key, authors=authors, title=title, year=year, url=f"https://arxiv.org/abs/{identifier}"
    )


_ALL = (
    Reference(
        key="chughtai2025",
        authors="Chughtai, Bilal and Bushnaq, Lucius",
        title="Activation space interpretability may be doomed",
        year=2025,
        url="https://www.alignmentforum.org/posts/gYfpPbww3wQRaxAFD",
    ),
    _arxiv(
        "bushnaq2024",
        "Bushnaq, Lucius and Heimersheim, Stefan and Goldowsky-Dill, Nicholas and others",
        "The local interaction basis: identifying computationally-relevant "
        "and sparsely interacting features in neural networks",
        "2405.10928",
    ),
    _arxiv(
        "hanni2024",
        "Hänni, Kaarel and Mendel, Jake and Vaintrob, Dmitry and Chan, Lawrence",
        "Mathematical models of computation in superposition",
        "2408.05451",
    ),
    _arxiv(
        "lampinen2025",
        "Lampinen, Andrew Kyle and others",
        "Representation biases: will we achieve complete understanding by analyzing "
        "representations?",
        "2507.22216",
    ),
    _arxiv(
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
    _arxiv(
        "chanin2026",
        "Chanin, David and Garriga-Alonso, Adrià",
        "SynthSAEBench: evaluating sparse autoencoders on scalable realistic synthetic data",
        "2602.14687",
    ),
    _arxiv(
        "gao2024", "Gao, Leo and others", "Scaling and evaluating sparse autoencoders", "2406.04093"
    ),
    _arxiv(
        "bussmann2024",
        "Bussmann, Bart and Leask, Patrick and Nanda, Neel",
        "BatchTopK sparse autoencoders",
        "2412.06410",
    ),
    Reference(
        key="bricken2023",
        authors="Bricken, Trenton and others",
        title="Towards monosemanticity: decomposing language models with dictionary learning",
        year=2023,
        url="https://transformer-circuits.pub/2023/monosemantic-features",
    ),
    _arxiv(
        "rajamanoharan2024jumprelu",
        "Rajamanoharan, Senthooran and others",
        "Jumping ahead: improving reconstruction fidelity with JumpReLU sparse autoencoders",
        "2407.14435",
    ),
    _arxiv(
        "rajamanoharan2024gated",
        "Rajamanoharan, Senthooran and others",
        "Improving dictionary learning with gated sparse autoencoders",
        "2404.16014",
    ),
    _arxiv(
        "karvonen2024",
        "Karvonen, Adam and others",
        "Measuring progress in dictionary learning for language model interpretability "
        "with board game models",
        "2408.00113",
    ),
    _arxiv(
        "bussmann2025",
        "Bussmann, Bart and Nabeshima, Noa and Karvonen, Adam and Nanda, Neel",
        "Learning multi-level features with Matryoshka sparse autoencoders",
        "2503.17547",
    ),
    _arxiv(
        "zhu2025",
        "Zhu, Xudong and Khalili, Mohammad Mahdi and Zhu, Zhihui",
        "AbsTopK: rethinking sparse autoencoders for bidirectional features",
        "2510.00404",
    ),
    Reference(
        key="srivastava2013",
        authors="Srivastava, Rupesh K. and Masci, Jonathan and Kazerounian, Sohrob and "
        "Gomez, Faustino and Schmidhuber, Jürgen",
        title="Compete to compute",
        year=2013,
        url="https://papers.nips.cc/paper/5059-compete-to-compute",
    ),
    _arxiv(
        "lieberum2024",
        "Lieberum, Tom and others",
        "Gemma Scope: open sparse autoencoders everywhere all at once on Gemma 2",
        "2408.05147",
    ),
    _arxiv(
        "korznikov2026",
        "Korznikov, Anton and others",
        "Sanity checks for sparse autoencoders",
        "2602.14111",
    ),
    _arxiv(
        "heap2025",
        "Heap, Thomas and others",
        "Automated interpretability metrics do not distinguish trained and random transformers",
        "2501.17727",
    ),
    _arxiv(
        "lee2024",
        "Lee, Daniel J. and Heimersheim, Stefan",
        "Investigating sensitive directions in GPT-2: an improved baseline "
        "and comparative analysis of SAEs",
        "2410.12555",
    ),
    _arxiv(
        "paulo2025",
        "Paulo, Gonçalo and Belrose, Nora",
        "Sparse autoencoders trained on the same data learn different features",
        "2501.16615",
    ),
    _arxiv(
        "karvonen2025",
        "Karvonen, Adam and others",
        "SAEBench: a comprehensive benchmark for sparse autoencoders "
        "in language model interpretability",
        "2503.09532",
    ),
    Reference(
        key="benjamini1995",
        authors="Benjamini, Yoav and Hochberg, Yosef",
        title="Controlling the false discovery rate",
        year=1995,
        kind="article",
        url="https://doi.org/10.1111/j.2517-6161.1995.tb02031.x",
    ),
    Reference(
        key="fisher1935",
        authors="Fisher, Ronald A.",
        title="The design of experiments",
        year=1935,
        url="https://archive.org/details/in.ernet.dli.2015.502684",
        kind="book",
    ),
    Reference(
        key="efron1979",
        authors="Efron, Bradley",
        title="Bootstrap methods: another look at the jackknife",
        year=1979,
        kind="article",
        url="https://doi.org/10.1214/aos/1176344552",
    ),
    Reference(
        key="kneser1995",
        authors="Kneser, Reinhard and Ney, Hermann",
        title="Improved backing-off for m-gram language modeling",
        year=1995,
        url="https://doi.org/10.1109/ICASSP.1995.479394",
    ),
    _arxiv(
        "nanda2023",
        "Nanda, Neel and others",
        "Progress measures for grokking via mechanistic interpretability",
        "2301.05217",
    ),
    Reference(
        key="jordan2024",
        authors="Jordan, Keller and others",
        title="Muon: an optimizer for hidden layers in neural networks",
        year=2024,
        url="https://kellerjordan.github.io/posts/muon/",
    ),
    Reference(
        key="conerly2024",
        authors="Conerly, Tom and Templeton, Adly and Bricken, Trenton and others",
        title="Circuits updates, April 2024: update on how we train SAEs",
        year=2024,
        url="https://transformer-circuits.pub/2024/april-update",
    ),
    Reference(
        key="elhage2022",
        authors="Elhage, Nelson and others",
        title="Toy models of superposition",
        year=2022,
        url="https://transformer-circuits.pub/2022/toy_model",
    ),
    Reference(
        key="pearson1901",
        authors="Pearson, Karl",
        title="On lines and planes of closest fit to systems of points in space",
        year=1901,
        kind="article",
        url="https://doi.org/10.1080/14786440109462720",
    ),
    Reference(
        key="buhlmann1970",
        authors="Bühlmann, Hans and Straub, Erwin",
        title="Glaubwürdigkeit für Schadensätze",
        year=1970,
        kind="article",
        # The paper is not on line; this describes its estimators.
        url="https://rdocumentation.org/packages/actuar/versions/1.2-2/topics/cm",
    ),
    _arxiv(
        "engels2024",
        "Engels, Joshua and Michaud, Eric J. and Liao, Isaac and Gurnee, Wes and Tegmark, Max",
        "Not all language model features are one-dimensionally linear",
        "2405.14860",
    ),
    _arxiv(
        "giglemiani2024",
        "Giglemiani, Giorgi and others",
        "Evaluating synthetic activations composed of SAE latents in GPT-2",
        "2409.15019",
    ),
    _arxiv(
        "prieto2026",
        "Prieto, Lucas and others",
        "From data statistics to feature geometry: how correlations shape superposition",
        "2603.09972",
    ),
    Reference(
        key="mallat1993",
        authors="Mallat, Stéphane G. and Zhang, Zhifeng",
        title="Matching pursuits with time-frequency dictionaries",
        year=1993,
        kind="article",
        url="https://doi.org/10.1109/78.258082",
    ),
    Reference(
        key="pati1993",
        authors="Pati, Y. C. and Rezaiifar, R. and Krishnaprasad, P. S.",
        title="Orthogonal matching pursuit: recursive function approximation with applications "
        "to wavelet decomposition",
        year=1993,
        url="https://doi.org/10.1109/ACSSC.1993.342465",
    ),
    Reference(
        key="blumensath2008",
        authors="Blumensath, Thomas and Davies, Mike E.",
        title="Gradient pursuits",
        year=2008,
        kind="article",
        url="https://doi.org/10.1109/TSP.2007.916124",
    ),
    Reference(
        key="bruckstein2008",
        authors="Bruckstein, Alfred M. and Elad, Michael and Zibulevsky, Michael",
        title="On the uniqueness of nonnegative sparse solutions to underdetermined systems "
        "of equations",
        year=2008,
        kind="article",
        url="https://doi.org/10.1109/TIT.2008.929920",
    ),
    Reference(
        key="nanda2024",
        authors="Nanda, Neel and Conmy, Arthur and Smith, Lewis and others",
        title="Progress update #1 from the GDM mech interp team",
        year=2024,
        url="https://www.alignmentforum.org/posts/HpAr8k74mW4ivCvCu",
    ),
    _arxiv(
        "paulo2025transcoders",
        "Paulo, Gonçalo and Shabalin, Stepan and Belrose, Nora",
        "Transcoders beat sparse autoencoders for interpretability",
        "2501.18823",
    ),
    _arxiv(
        "costa2025",
        "Costa, Valérie and Fel, Thomas and Lubana, Ekdeep Singh and others",
        "From flat to hierarchical: extracting sparse representations with matching pursuit",
        "2506.03093",
    ),
    _arxiv(
        "fel2025",
        "Fel, Thomas and Lubana, Ekdeep Singh and Prince, Jacob S. and others",
        "Archetypal SAE: adaptive and stable dictionary learning for concept extraction in large "
        "vision models",
        "2502.12892",
    ),
    Reference(
        key="ameisen2025",
        authors="Ameisen, Emmanuel and Lindsey, Jack and Pearce, Adam and others",
        title="Circuit tracing: revealing computational graphs in language models",
        year=2025,
        url="https://transformer-circuits.pub/2025/attribution-graphs/methods.html",
    ),
    _arxiv(
        "lubana2025",
        "Lubana, Ekdeep Singh and Rager, Can and Hindupur, Sai Sumedh R. and others",
        "Priors in time: missing inductive biases for language model interpretability",
        "2511.01836",
    ),
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
    _arxiv(
        "marks2023",
        "Marks, Samuel and Tegmark, Max",
        "The geometry of truth: emergent linear structure in large language model representations "
        "of true/false datasets",
        "2310.06824",
    ),
    _arxiv(
        "burns2022",
        "Burns, Collin and Ye, Haotian and Klein, Dan and Steinhardt, Jacob",
        "Discovering latent knowledge in language models without supervision",
        "2212.03827",
    ),
    _arxiv(
        "gurnee2023",
        "Gurnee, Wes and Nanda, Neel and Pauly, Matthew and others",
        "Finding neurons in a haystack: case studies with sparse probing",
        "2305.01610",
    ),
    _arxiv(
        "belrose2023leace",
        "Belrose, Nora and Schneider-Joseph, David and Ravfogel, Shauli and others",
        "LEACE: perfect linear concept erasure in closed form",
        "2306.03819",
    ),
)

REFERENCES: dict[str, Reference] = {reference.key: reference for reference in _ALL}


def bibliography(keys: Iterable[str]) -> str:
    """BibTeX of the given keys, each once, sorted.

    Raises:
        UnknownNameError: for a key that is not in `REFERENCES`.
    """
    wanted = sorted(set(keys))
    for key in wanted:
        if key not in REFERENCES:
            raise UnknownNameError("A reference", key, REFERENCES)
    return "\n\n".join(REFERENCES[key].bibtex for key in wanted)
