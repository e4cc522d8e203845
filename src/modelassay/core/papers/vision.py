"""Vision models: feature visualization, atlases, and circuits of convolutional networks."""

from modelassay.core.papers.reference import Reference, arxiv, distill

VISION = (
    Reference(
        key="mordvintsev2015",
        authors="Mordvintsev, Alexander and Olah, Christopher and Tyka, Mike",
        title="Inceptionism: going deeper into neural networks",
        year=2015,
        url="https://research.google/blog/inceptionism-going-deeper-into-neural-networks/",
    ),
    distill(
        "olah2017",
        "Olah, Chris and Mordvintsev, Alexander and Schubert, Ludwig",
        "Feature visualization",
        "00007",
        2017,
    ),
    distill(
        "olah2018",
        "Olah, Chris and Satyanarayan, Arvind and Johnson, Ian and others",
        "The building blocks of interpretability",
        "00010",
        2018,
    ),
    distill(
        "mordvintsev2018",
        "Mordvintsev, Alexander and Pezzotti, Nicola and Schubert, Ludwig and Olah, Chris",
        "Differentiable image parameterizations",
        "00012",
        2018,
    ),
    distill(
        "carter2019",
        "Carter, Shan and Armstrong, Zan and Schubert, Ludwig and Johnson, Ian and Olah, Chris",
        "Activation atlas",
        "00015",
        2019,
    ),
    distill(
        "olah2020",
        "Olah, Chris and Cammarata, Nick and Schubert, Ludwig and others",
        "Zoom in: an introduction to circuits",
        "00024.001",
        2020,
    ),
    distill(
        "cammarata2020",
        "Cammarata, Nick and Goh, Gabriel and Carter, Shan and others",
        "Curve detectors",
        "00024.003",
        2020,
    ),
    distill(
        "schubert2021",
        "Schubert, Ludwig and Voss, Chelsea and Cammarata, Nick and Goh, Gabriel and Olah, Chris",
        "High-low frequency detectors",
        "00024.005",
        2021,
    ),
    distill(
        "cammarata2021",
        "Cammarata, Nick and Goh, Gabriel and Carter, Shan and others",
        "Curve circuits",
        "00024.006",
        2021,
    ),
    distill(
        "voss2021",
        "Voss, Chelsea and Cammarata, Nick and Goh, Gabriel and others",
        "Visualizing weights",
        "00024.007",
        2021,
    ),
    arxiv(
        "iandola2016",
        "Iandola, Forrest N. and Han, Song and Moskewicz, Matthew W. and others",
        "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
        "1602.07360",
    ),
    arxiv(
        "fel2023",
        "Fel, Thomas and Boissin, Thibaut and Boutin, Victor and others",
        "Unlocking feature visualization for deeper networks with magnitude constrained "
        "optimization",
        "2306.06805",
    ),
)
