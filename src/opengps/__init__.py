"""openGPS, the website: Predict, Submit and their REST API over `deepgps.prediction` and `deepgps.results`.

A visitor's request becomes a *job*: proteins, nuclei and a model, kept in the database under an id that
cannot be guessed. A worker takes a *turn* of whichever job has waited longest: it predicts a few proteins
into the job's folder with `deepgps.results.save` and copies each finished row into the database, where pages
and API read it. A queue message only wakes a worker; what is to be done stands in the database, so that a
message or a process may be lost at any moment. What a lab submits of its own: `opengps.submissions`.
"""
