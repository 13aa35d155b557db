"""Code generated from proto/amends/v1; do not edit (make generate)."""
