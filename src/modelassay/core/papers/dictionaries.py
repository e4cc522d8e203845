"""Dictionary learning: sparse autoencoders, transcoders, pursuits, and their training."""

from modelassay.core.papers.reference import Reference, arxiv

DICTIONARIES = (
    arxiv(
        "gao2024", "Gao, Leo and others", "Scaling and evaluating sparse autoencoders", "2406.04093"
    ),
    arxiv(
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
    arxiv(
        "rajamanoharan2024jumprelu",
        "Rajamanoharan, Senthooran and others",
        "Jumping ahead: improving reconstruction fidelity with JumpReLU sparse autoencoders",
        "2407.14435",
    ),
    arxiv(
        "rajamanoharan2024gated",
        "Rajamanoharan, Senthooran and others",
        "Improving dictionary learning with gated sparse autoencoders",
        "2404.16014",
    ),
    arxiv(
        "karvonen2024",
        "Karvonen, Adam and others",
        "Measuring progress in dictionary learning for language model interpretability "
        "with board game models",
        "2408.00113",
    ),
    arxiv(
        "bussmann2025",
        "Bussmann, Bart and Nabeshima, Noa and Karvonen, Adam and Nanda, Neel",
        "Learning multi-level features with Matryoshka sparse autoencoders",
        "2503.17547",
    ),
    arxiv(
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
    arxiv(
        "lieberum2024",
        "Lieberum, Tom and others",
        "Gemma Scope: open sparse autoencoders everywhere all at once on Gemma 2",
        "2408.05147",
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
    arxiv(
        "paulo2025transcoders",
        "Paulo, Gonçalo and Shabalin, Stepan and Belrose, Nora",
        "Transcoders beat sparse autoencoders for interpretability",
        "2501.18823",
    ),
    arxiv(
        "costa2025",
        "Costa, Valérie and Fel, Thomas and Lubana, Ekdeep Singh and others",
        "From flat to hierarchical: extracting sparse representations with matching pursuit",
        "2506.03093",
    ),
    arxiv(
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
    arxiv(
        "lubana2025",
        "Lubana, Ekdeep Singh and Rager, Can and Hindupur, Sai Sumedh R. and others",
        "Priors in time: missing inductive biases for language model interpretability",
        "2511.01836",
    ),
)
