"""What declares the desired state: `context.json` (context_file) and manifests (manifests, over yaml_text)."""
