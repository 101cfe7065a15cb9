"""snnc"""
