"""The words that every floor uses: errors, specs, ids, samples, isolated processes, the bundle format."""
