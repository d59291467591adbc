"""How clips move: manifest, facts, filters, shards. Knows no network and never imports torch."""
