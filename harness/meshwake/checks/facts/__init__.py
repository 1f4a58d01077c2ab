"""Facts that no lab records and every check needs, each derived once from a history.

    clocks         what happened to the clocks of a node, and when it was asleep
    certificates   which certificate was held when, and which renewal was late by how much
    traffic        when a pair could not connect

Pure functions of a history (and its plan). The definitions, for a certificate (facts: istio/ztunnel
src/tls/certificate.rs `refresh_at`, src/time.rs `Converter`; checked against real binaries of 1.27,
1.28 and 1.31):

    due       notBefore + (notAfter - notBefore) / 2 by the wall clock: the middle of its validity
    late      wall at the renewal - due; on an unpatched ztunnel this is the clock drift of its process, all the time
              that its machine ever slept
    expired   wall > notAfter; until notAfter itself a certificate is good, at both ends (RFC 5280, rustls)
    awake     world time during which the processes of a node could run: not suspended, paused or frozen

A fault that had not ended at the end of the history lasts until that end.
"""
