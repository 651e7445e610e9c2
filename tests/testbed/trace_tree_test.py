"""What trace_tree.py prints, for a real trace: a pod created through a mutating webhook."""
import copy
import json
import pathlib
import random
import unittest

import trace_tree

DATA = pathlib.Path(__file__).parent / "testdata"


class TraceTree(unittest.TestCase):
    def setUp(self):
        self.trace = json.loads((DATA / "create-pod.json").read_text())

    def test_prints_the_golden_tree(self):
        self.assertEqual("\n".join(trace_tree.tree(self.trace)) + "\n", (DATA / "create-pod.txt").read_text())

    def test_does_not_depend_on_the_order_of_the_spans(self):
        shuffled = copy.deepcopy(self.trace)
        random.Random(1).shuffle(shuffled["spans"])
        self.assertEqual(trace_tree.tree(shuffled), trace_tree.tree(self.trace))

    def test_shows_a_span_whose_parent_is_missing_as_a_root(self):
        self.trace["spans"] = [span for span in self.trace["spans"] if span["operationName"] != "audit"]
        rows = trace_tree.tree(self.trace)[1:]
        self.assertEqual(len(rows), len(self.trace["spans"]))
        self.assertEqual(sum("└─" not in row and "├─" not in row for row in rows), 2)

    def test_is_complete_only_with_every_expected_service(self):
        self.assertTrue(trace_tree.complete(self.trace, {"apiserver", "etcd", "demo-webhook"}))
        self.assertFalse(trace_tree.complete(self.trace, {"apiserver", "kubelet"}))
        self.assertFalse(trace_tree.complete(None, set()))


if __name__ == "__main__":
    unittest.main()
