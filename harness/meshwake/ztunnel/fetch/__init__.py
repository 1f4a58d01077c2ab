"""Real ztunnels out of their official image: requested by the user, checked by digest, kept in the
cache.

registry.py   the distribution protocol: token, index, manifest, blobs; resumed, tried again, never endless
image.py      one file out of the layers of an image, from a registry or from a saved image
fetch.py      a version into the cache, and the lock file that remembers its digests
"""
