"""Ranking users with a policy, a server or TALLRec, and the result files of an evaluation."""
