"""The original service with its delay removed: FastAPI, pydantic, two structlog lines a request."""

import os

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.JSONRenderer(),
    ]
)
logger = structlog.get_logger()

app = FastAPI()


class Operands(BaseModel):
    a: float
    b: float


@app.post("/")
async def add(operands: Operands):
    logger.info("Received addition request", a=operands.a, b=operands.b)
    result = operands.a + operands.b
    logger.info("Computed result", a=operands.a, b=operands.b, result=result)
    return {"result": result}


if __name__ == "__main__":
    # No access log: every contender that logs writes the same two lines.
    uvicorn.run(
        "app:app",
        host="127.0.0.1",
        port=int(os.environ.get("PORT", "8000")),
        workers=len(os.sched_getaffinity(0)),
        loop="uvloop",
        http="httptools",
        access_log=False,
    )
