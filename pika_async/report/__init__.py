"""What a batch leaves for people and programs: `results.jsonl` and a page to look at. Sends and fetches nothing."""

from pika_async.report.gallery import write_gallery
from pika_async.report.results import ResultsWriter, as_line, read_results, row

__all__ = ["ResultsWriter", "as_line", "read_results", "row", "write_gallery"]
