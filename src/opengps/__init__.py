"""openGPS, the website: pages and a REST API for `deepgps.prediction.Predictor`.

A request becomes a *job* in the database. The table of jobs is the queue: a worker leases the job that has
waited longest, computes a *chunk* of it and releases it. Finished results are rows of the database; their
images are in the file storage. Follow a request through `opengps.app`, `api`, `requests` and `jobs`, and a
job through `opengps.worker`, `queue` and `storage`. Images that labs submit: `opengps.submissions`.
"""
