"""Models under study: sites, access by hooks, verified structure, null twins."""
