"""Networks that read the conversation and say of each line of a tool result how likely it will be needed.

Needs the extra `scorer`. What is here is imported by the module that needs it, so that the windows can be made where
there is no torch.
"""
