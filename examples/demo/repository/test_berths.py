import unittest

from berths import Stay, conflicts, overlap


class OverlapTest(unittest.TestCase):
    def test_apart(self):
        self.assertFalse(overlap(Stay("Alma", 1, 3), Stay("Bora", 5, 8)))

    def test_one_inside_the_other(self):
        self.assertTrue(overlap(Stay("Alma", 1, 9), Stay("Bora", 2, 4)))

    def test_one_leaves_as_the_other_comes(self):
        self.assertFalse(overlap(Stay("Bora", 3, 5), Stay("Alma", 1, 3)))


class ConflictsTest(unittest.TestCase):
    def test_a_full_day(self):
        stays = [Stay("Alma", 0, 8), Stay("Bora", 8, 16), Stay("Cora", 15, 20)]
        self.assertEqual(conflicts(stays), [("Bora", "Cora")])


if __name__ == "__main__":
    unittest.main()
