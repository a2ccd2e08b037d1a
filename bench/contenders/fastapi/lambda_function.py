"""The original service as a function: Mangum turns events into ASGI calls."""

from mangum import Mangum

from app import app

handler = Mangum(app, lifespan="off")
