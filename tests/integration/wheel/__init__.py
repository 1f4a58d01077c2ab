"""The wheel as other people have it: built once, installed elsewhere, used from another directory."""
