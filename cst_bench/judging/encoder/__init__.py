"""Judges of kind `encoder`: a small text encoder that comes with its weights. It needs no key and no GPU."""

from cst_bench.judging.encoder.encoder_judge import FILE_MODEL, EncoderFile, EncoderJudge, make

__all__ = ["FILE_MODEL", "EncoderFile", "EncoderJudge", "make"]
