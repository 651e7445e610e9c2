"""What webhook.py answers, and which requests it traces."""
import base64
import json
import unittest

import webhook

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def review(metadata):
    return {"apiVersion": "admission.k8s.io/v1", "request": {"uid": "u", "object": {"metadata": metadata}}}


class Webhook(unittest.TestCase):
    def patch_for(self, metadata):
        response = webhook.review_response(review(metadata))["response"]
        self.assertEqual((response["uid"], response["allowed"]), ("u", True))
        return [(step["op"], step["path"]) for step in json.loads(base64.b64decode(response["patch"]))]

    def test_adds_the_annotations_only_where_there_are_none(self):
        own = ("add", "/metadata/annotations/demo.clustertracing.dev~1seen-by")
        self.assertEqual(self.patch_for({}), [("add", "/metadata/annotations"), own])
        self.assertEqual(self.patch_for({"annotations": {"a": "b"}}), [own])

    def test_continues_sampled_traces_only(self):
        cases = {
            f"00-{TRACE}-{SPAN}-01": (TRACE, SPAN),
            f"00-{TRACE}-{SPAN}-00": None,
            f"00-{TRACE}-{SPAN}": None,
            "": None,
            None: None,
        }
        for header, expected in cases.items():
            with self.subTest(header=header):
                self.assertEqual(webhook.sampled_parent(header), expected)


if __name__ == "__main__":
    unittest.main()
