"""What is true at each token of a Python file, computed and not judged."""

from modelassay.explain.concepts.labels import ConceptLabels as ConceptLabels
from modelassay.explain.concepts.labels import concept_labels as concept_labels
from modelassay.explain.concepts.library import LIBRARY as LIBRARY
from modelassay.explain.concepts.library import Concept as Concept
from modelassay.explain.concepts.python import python_concepts as python_concepts
