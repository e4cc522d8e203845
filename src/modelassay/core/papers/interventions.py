"""Interventions: patching, mediation, steering, and what fine-tuning changed."""

from modelassay.core.papers.reference import Reference, arxiv

INTERVENTIONS = (
    arxiv(
        "pearl2001",
        "Pearl, Judea",
        "Direct and indirect effects",
        "1301.2300",
        year=2001,
    ),
    Reference(
        key="vig2020",
        authors="Vig, Jesse and Gehrmann, Sebastian and Belinkov, Yonatan and others",
        title="Investigating gender bias in language models using causal mediation analysis",
        year=2020,
        url="https://proceedings.neurips.cc/paper/2020/hash/"
        "92650b2e92217715fe312e6fa7b90d82-Abstract.html",
    ),
    arxiv(
        "meng2022",
        "Meng, Kevin and Bau, David and Andonian, Alex and Belinkov, Yonatan",
        "Locating and editing factual associations in GPT",
        "2202.05262",
    ),
    arxiv(
        "wang2022",
        "Wang, Kevin and Variengien, Alexandre and Conmy, Arthur and Shlegeris, Buck and "
        "Steinhardt, Jacob",
        "Interpretability in the wild: a circuit for indirect object identification in GPT-2 small",
        "2211.00593",
    ),
    arxiv(
        "goldowsky2023",
        "Goldowsky-Dill, Nicholas and MacLeod, Chris and Sato, Lucas and Arora, Aryaman",
        "Localizing model behavior with path patching",
        "2304.05969",
    ),
    arxiv(
        "hanna2023",
        "Hanna, Michael and Liu, Ollie and Variengien, Alexandre",
        "How does GPT-2 compute greater-than? Interpreting mathematical abilities in a "
        "pre-trained language model",
        "2305.00586",
    ),
    arxiv(
        "heimersheim2024",
        "Heimersheim, Stefan and Nanda, Neel",
        "How to use and interpret activation patching",
        "2404.15255",
    ),
    Reference(
        key="nanda2023attribution",
        authors="Nanda, Neel",
        title="Attribution patching: activation patching at industrial scale",
        year=2023,
        url="https://www.neelnanda.io/mechanistic-interpretability/attribution-patching",
    ),
    arxiv(
        "syed2023",
        "Syed, Aaquib and Rager, Can and Conmy, Arthur",
        "Attribution patching outperforms automated circuit discovery",
        "2310.10348",
    ),
    arxiv(
        "kramar2024",
        "Kramár, János and Lieberum, Tom and Shah, Rohin and Nanda, Neel",
        "AtP*: an efficient and scalable method for localizing LLM behaviour to components",
        "2403.00745",
    ),
    arxiv(
        "sundararajan2017",
        "Sundararajan, Mukund and Taly, Ankur and Yan, Qiqi",
        "Axiomatic attribution for deep networks",
        "1703.01365",
    ),
    arxiv(
        "hanna2024",
        "Hanna, Michael and Pezzelle, Sandro and Belinkov, Yonatan",
        "Have faith in faithfulness: going beyond circuit overlap when finding model mechanisms",
        "2403.17806",
    ),
    arxiv(
        "marks2024",
        "Marks, Samuel and Rager, Can and Michaud, Eric J. and others",
        "Sparse feature circuits: discovering and editing interpretable causal graphs in "
        "language models",
        "2403.19647",
    ),
    arxiv(
        "turner2023",
        "Turner, Alexander Matt and others",
        "Activation addition: steering language models without optimization",
        "2308.10248",
    ),
    arxiv(
        "rimsky2024",
        "Rimsky, Nina and Gabrieli, Nick and Schulz, Julian and others",
        "Steering Llama 2 via contrastive activation addition",
        "2312.06681",
        year=2024,
    ),
    Reference(
        key="templeton2024",
        authors="Templeton, Adly and Conerly, Tom and Marcus, Jonathan and others",
        title="Scaling monosemanticity: extracting interpretable features from Claude 3 Sonnet",
        year=2024,
        url="https://transformer-circuits.pub/2024/scaling-monosemanticity",
    ),
    arxiv(
        "arditi2024",
        "Arditi, Andy and Obeso, Oscar and Syed, Aaquib and others",
        "Refusal in language models is mediated by a single direction",
        "2406.11717",
    ),
    arxiv(
        "minder2025",
        "Minder, Julian and Dumas, Clément and Juang, Caden and Chughtai, Bilal and Nanda, Neel",
        "Overcoming sparsity artifacts in crosscoders to interpret chat-tuning",
        "2504.02922",
    ),
)
